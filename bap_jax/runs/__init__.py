"""One run: training it, resuming, validating, evaluating, reading it again.

Names are looked up when they are first used, so that settings are there without jax.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bap_jax.runs.deployed import Deployed
    from bap_jax.runs.evaluate import evaluate_run
    from bap_jax.runs.fitting import Fitted, fit
    from bap_jax.runs.loop import train
    from bap_jax.runs.plan import AttackPlan
    from bap_jax.runs.restore import load
    from bap_jax.runs.session import Trained
    from bap_jax.runs.settings import Settings
    from bap_jax.runs.signals import Interrupted
    from bap_jax.runs.training_options import TrainingOptions

__all__ = [
    "AttackPlan",
    "Deployed",
    "Fitted",
    "Interrupted",
    "Settings",
    "Trained",
    "TrainingOptions",
    "evaluate_run",
    "fit",
    "load",
    "train",
]

_PLACES = (
    ("deployed", "Deployed"),
    ("evaluate", "evaluate_run"),
    ("fitting", "Fitted fit"),
    ("loop", "train"),
    ("training_options", "TrainingOptions"),
    ("plan", "AttackPlan"),
    ("restore", "load"),
    ("session", "Trained"),
    ("settings", "Settings"),
    ("signals", "Interrupted"),
)


def __getattr__(name: str) -> Any:
    """What is offered here, from where it stands (PEP 562)."""
    from importlib import import_module

    for place, names in _PLACES:
        if name in names.split():
            found = globals()[name] = getattr(import_module(f"{__name__}.{place}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
