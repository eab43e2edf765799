"""How runs are called in tables and pictures: the arm says how a run was trained, the process how it was pruned."""

from __future__ import annotations

from collections.abc import Iterable

from bap_jax.cli.settings import Settings

ADVERSARIAL = ("attack", "attack_steps", "step_size", "norm", "adversarial_weight")
BLIND = ("search", "search_steps", "num_bisections", "example", "cutoff", "scale", "epsilon_max")
ALWAYS = ("loss", "label_smoothing", "optimizer", "learning_rate", "weight_decay", "augment")


def arm_of(settings: Settings) -> str:
    """``clean``, ``uniform 0.3``, ``blind``, and every setting of the training in which it departs from the defaults.

    >>> arm_of(Settings(budget="uniform", epsilon="0.3")), arm_of(Settings()), arm_of(Settings(cutoff="off", norm="rms"))
    ('uniform 0.3', 'blind', 'blind, norm rms, cutoff off')
    """
    names = {
        "none": ("clean", ()),
        "uniform": (f"uniform {settings.epsilon}", ADVERSARIAL),
        "cutoff-scale": ("blind", (*ADVERSARIAL, *BLIND)),
    }
    first, told = names.get(settings.budget, (settings.budget, (*ADVERSARIAL, *BLIND)))
    default = Settings()
    parts = [
        f"{name.replace('_', ' ')} {getattr(settings, name)}"
        for name in (*told, *ALWAYS)
        if getattr(settings, name) != getattr(default, name)
    ]
    return ", ".join([first, *parts])


def short_names(arms: Iterable[str]) -> dict[str, str]:
    """Arm → its name without what all adversarial arms have in common.

    >>> list(short_names(["clean", "uniform 0.1, attack steps 5", "blind, attack steps 5, scale 1.0"]).values())
    ['clean', 'uniform 0.1', 'blind, scale 1.0']
    """
    parts = {arm: arm.split(", ") for arm in arms}
    adversarial = [set(told[1:]) for told in parts.values() if told[0] != "clean"]
    common = set.intersection(*adversarial) if len(adversarial) > 1 else set()
    return {arm: ", ".join([told[0], *(part for part in told[1:] if part not in common)]) for arm, told in parts.items()}


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
    extra += [f"from {settings.initial_sparsity:g}"] if settings.initial_sparsity else []
    extra += [f"every {settings.frequency}"] if settings.frequency else []
    return " ".join([ramp, *extra])
