"""Configurations as earlier versions wrote them."""

from typing import Any

from bap_jax.runs.settings import Settings
from bap_jax.runs.slots import MOVED, old_default


def schema_1(settings: Settings) -> dict[str, Any]:
    """The settings as a config.json held them when the options of all kinds stood side by side."""
    config = {name: value for name, value in settings.as_dict().items() if "." not in name and name != "schema"}
    for name, (slot, option) in MOVED.items():
        config[name] = settings.options(slot).values().get(option, old_default(name))
    return config | {"epsilon": settings.epsilon}
