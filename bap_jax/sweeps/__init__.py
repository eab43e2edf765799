"""Many runs as one job: the grid, groups that train together, what is finished. Names are looked up when they are first used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bap_jax.sweeps.execute import Swept
    from bap_jax.sweeps.execute import run_sweep as run
    from bap_jax.sweeps.grid import Sweep

__all__ = ["Sweep", "Swept", "run"]

_PLACES = {"Sweep": ("grid", "Sweep"), "Swept": ("execute", "Swept"), "run": ("execute", "run_sweep")}


def __getattr__(name: str) -> Any:
    """What is offered here, from where it stands (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    place, own = _PLACES[name]
    found = globals()[name] = getattr(import_module(f"{__name__}.{place}"), own)
    return found
