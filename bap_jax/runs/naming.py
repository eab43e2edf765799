"""How runs are called in tables and pictures: the arm says how a run was trained, the process how it was pruned."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bap_jax.runs.settings import Settings

ADVERSARIAL = ("attack", "attack_steps", "step_size", "objective", "norm", "adversarial_weight")
SEARCH = ("search", "search_steps", "num_bisections", "path", "halving")
BLIND = (*SEARCH, "example", "cutoff", "cutoff_over", "wrong", "scale", "epsilon_max")
OTHERS = {  # the name that a budget is known by, and the settings of its own
    "mma": ("MMA", ("epsilon_min", "epsilon_max", "num_bisections")),
    "iaat": ("IAAT", ("epsilon", "epsilon_step", "epsilon_rate", "epsilon_warmup")),
    "cat": ("CAT", ("epsilon_step", "epsilon_max", "label_factor")),
    "fat": ("FAT", ("epsilon", "tau_rises")),
}
UNRAMPED = ("dense", "imported")  # pruners that no ramp leads
OPTIMIZER = ("optimizer", "momentum", "nesterov", "learning_rate", "weight_decay", "gradient_clip")
RATE = ("rate_schedule", "rate_warmup", "rate_boundaries", "rate_factors", "rate_cycles")
ALWAYS = ("loss", "beta", "label_smoothing", *OPTIMIZER, *RATE, "ema", "augment")


def arm_of(settings: Settings) -> str:
    """``clean``, ``uniform 0.3``, ``blind``, ``MMA``, and every setting of the training in which it departs from the defaults.

    The arms of the paper: ``unrestricted by DeepFool`` is adversarial pruning without a budget; ``blind by DeepFool`` cuts and
    scales what DeepFool found, ``blind by DeepFool, cut only`` and ``..., scale only`` do one of the two.

    >>> arm_of(Settings(budget="uniform", epsilon="0.3")), arm_of(Settings()), arm_of(Settings(cutoff="mean", norm="rms"))
    ('uniform 0.3', 'blind', 'blind, norm rms')
    >>> from dataclasses import replace
    >>> paper = Settings(search="deepfool", example="rescaled", norm="rms", scale=0.9)
    >>> arm_of(paper), arm_of(replace(paper, cutoff="off", scale=1.0))
    ('blind by DeepFool, norm rms, scale 0.9', 'unrestricted by DeepFool, norm rms')
    >>> arm_of(Settings(init_from="runs/dense", init_masks="none"))
    'blind, init from dense, init masks none'
    """
    blind, named = _blind_arm(settings)
    names = {
        "none": ("clean", ()),
        "uniform": (f"uniform {settings.epsilon}", ADVERSARIAL),
        "cutoff-scale": (blind, (*ADVERSARIAL, *BLIND)),
        **{budget: (name, (*ADVERSARIAL, *own)) for budget, (name, own) in OTHERS.items()},
    }
    first, told = names.get(settings.budget, (settings.budget, (*ADVERSARIAL, *BLIND)))
    left_out = named if settings.budget == "cutoff-scale" else ()
    default = Settings()
    parts = [
        f"{name.replace('_', ' ')} {getattr(settings, name)}"
        for name in (*told, *ALWAYS)
        if name not in left_out and getattr(settings, name) != getattr(default, name)
    ]
    return ", ".join([first, *parts, *_start(settings)])


def _start(settings: Settings) -> list[str]:
    """What a run says of the network that it started from, if it did from one."""
    if settings.init_from is None:
        return []
    name, default = Path(settings.init_from).name or settings.init_from, Settings()
    told = [one for one in ("init_checkpoint", "init_masks") if getattr(settings, one) != getattr(default, one)]
    return [f"init from {name.replace(',', ' ')}", *(f"{one.replace('_', ' ')} {getattr(settings, one)}" for one in told)]


def _blind_arm(settings: Settings) -> tuple[str, tuple[str, ...]]:
    """How an arm with the budget cutoff-scale is called, and the settings that this says already."""
    by, named = "", []
    if settings.search == "deepfool" and settings.example == "rescaled":
        by, named = " by DeepFool", ["search", "example"]
    cut, scaled = settings.cutoff != "off", settings.scale != 1
    if not cut and not scaled:
        return f"unrestricted{by}", (*named, "cutoff", "scale")
    if not cut:
        return f"blind{by}, scale only", (*named, "cutoff")
    if not scaled:
        return f"blind{by}, cut only", (*named, "scale")
    return f"blind{by}", tuple(named)


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
    """The ramp, its begin and end: ``0-60%``; schedule, scope, distribution, initial sparsity and frequency where they depart
    from the defaults. Whatever follows a ramp has one in its name, so that two processes never share a name.

    >>> process_of(Settings(ramp_end=0.2, frequency=50)), process_of(Settings(pruner="dense"))
    ('0-20% every 50', 'dense')
    >>> process_of(Settings(pruner="mine.pruners:gradual", ramp_begin=0.1))
    'mine.pruners:gradual 10-60%'
    """
    if settings.pruner in UNRAMPED:
        return settings.pruner
    ramp = f"{100 * settings.ramp_begin:g}-{100 * settings.ramp_end:g}%"
    extra: list[str] = [] if settings.schedule == "gradual" else [settings.schedule]
    extra += [settings.scope] if settings.scope != "layer" else []
    extra += [settings.distribution] if settings.distribution != "uniform" else []
    extra += [f"from {settings.initial_sparsity:g}"] if settings.initial_sparsity else []
    extra += [f"every {settings.frequency}"] if settings.frequency else []
    return " ".join([*([] if settings.pruner == "magnitude" else [settings.pruner]), ramp, *extra])
