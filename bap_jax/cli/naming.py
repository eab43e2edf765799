"""How runs are called in tables and pictures: the arm says how a run was trained, the process how it was pruned."""

from __future__ import annotations

from bap_jax.cli.settings import Settings


def arm_of(settings: Settings) -> str:
    """``clean``, ``uniform 0.3``, ``blind``, and whatever departs from their defaults.

    >>> arm_of(Settings(budget="uniform", epsilon="0.3")), arm_of(Settings()), arm_of(Settings(cutoff="off"))
    ('uniform 0.3', 'blind', 'blind, cutoff off')
    """
    if settings.budget == "none":
        return "clean"
    if settings.budget == "uniform":
        return f"uniform {settings.epsilon}" + ("" if settings.attack == "pgd" else f", {settings.attack}")
    if settings.budget != "cutoff-scale":
        return settings.budget
    default = Settings()
    parts = [
        f"{name.replace('_', ' ')} {getattr(settings, name)}"
        for name in ("search", "search_steps", "example", "cutoff", "scale", "epsilon_max", "norm")
        if getattr(settings, name) != getattr(default, name)
    ]
    return ", ".join(["blind", *parts])


def process_of(settings: Settings) -> str:
    """The ramp: ``0-60%``, with schedule, scope and frequency where they depart from the defaults.

    >>> process_of(Settings(ramp_end=0.2)), process_of(Settings(pruner="dense"))
    ('0-20%', 'dense')
    """
    if settings.pruner != "magnitude":
        return settings.pruner
    ramp = f"{100 * settings.ramp_begin:g}-{100 * settings.ramp_end:g}%"
    extra: list[str] = [] if settings.schedule == "gradual" else [settings.schedule]
    extra += [settings.scope] if settings.scope != "layer" else []
    extra += [settings.distribution] if settings.distribution != "uniform" else []
    extra += [f"every {settings.frequency}"] if settings.frequency else []
    return " ".join([ramp, *extra])
