"""How runs are called in tables and pictures: the arm says how a run was trained, the process how it was pruned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bap_jax.runs.options import types_of
from bap_jax.runs.parsing import format_radius, format_value, is_radius
from bap_jax.runs.settings import General, Settings
from bap_jax.runs.slots import OLD_NAMES, SLOTS, row_of

IMPORTED = "imported"  # the pruner of a run whose weights came from elsewhere
UNRAMPED = (IMPORTED, *(name for name, row in SLOTS["pruner"].items() if not row.ramped))
RATE = ("rate_schedule", "rate_warmup", "rate_boundaries", "rate_factors", "rate_cycles")
LONGEST = 48  # characters of an option's value in a name
COLUMNS = ("method", "pruner", "budget", "loss", "train_attack", "train_norm", "train_epsilon")
STRUCTURES = ("filter", "channel", "kernel", "column")  # values of a pruner's option ``structure`` that are no single weights


def arm_of(settings: Settings) -> str:
    """``clean``, ``uniform 0.3``, ``blind``, ``MMA``, and every setting of the training in which it departs from the defaults.

    The arms of the paper: ``unrestricted by DeepFool`` is adversarial pruning without a budget; ``blind by DeepFool`` cuts and
    scales what DeepFool found, ``blind by DeepFool, cut only`` and ``..., scale only`` do one of the two.

    Example:
      >>> arm_of(Settings(budget="uniform", epsilon="0.3")), arm_of(Settings()), arm_of(Settings(cutoff="mean", norm="rms"))
      ('uniform 0.3', 'blind', 'blind, norm rms')
      >>> from dataclasses import replace
      >>> paper = Settings(search="deepfool", example="rescaled", norm="rms", scale=0.9)
      >>> arm_of(paper), arm_of(replace(paper, cutoff="off", scale=1.0))
      ('blind by DeepFool, norm rms, scale 0.9', 'unrestricted by DeepFool, norm rms')
      >>> arm_of(Settings(init_from="runs/dense", init_masks="none"))
      'blind, init from dense, init masks none'
      >>> arm_of(Settings(method="bap")), arm_of(Settings(method="hydra", epsilon=0.1, phases={"prune": {"epochs": 3}}))
      ('blind', 'hydra, epsilon 0.1, prune epochs 3')
      >>> arm_of(Settings(method="twin_rep", epsilon=0.1))
      'twin_rep, epsilon 0.1'
    """
    if _by_method(settings):
        return ", ".join([*_of_phases(settings), *_start(settings)])
    row = settings.row("budget")
    first, said = settings.options("budget").called(row.label or settings.budget)
    left_out = {f"budget.{name}" for name in said}
    own = {slot: [f"{slot}.{name}" for name in settings.options(slot).changed()] for slot in SLOTS}
    attacked = ["attack", *own["attack"], "norm", "loss.adversarial_weight", *own["budget"]]
    told = [*(attacked if row.attacks else ()), "loss", *own["loss"], "optimizer", *own["optimizer"]]
    told += ["weight_bits", "gradient_clip", *RATE, "ema", "augment"]
    if not row.attacks:
        left_out.add("loss.adversarial_weight")
    default = General()
    changed = [name for names in own.values() for name in names]
    changed += [name for name in told if "." not in name and getattr(settings, name) != getattr(default, name)]
    parts = [told_in_words(settings, name) for name in dict.fromkeys(told) if name in changed and name not in left_out]
    return ", ".join([first, *parts, *_start(settings)])


def _by_method(settings: Settings) -> bool:
    """Whether an arm is called after its method: one of several phases, or whose pruner follows no ramp."""
    named = settings.method is not None and settings.pruner in UNRAMPED and settings.pruner != "dense"
    return named or bool(settings.in_phases())


def network_name(settings: Settings) -> str:
    """The network, and every option in which it departs from the defaults.

    Example:
      >>> network_name(Settings(model="resnet8"))
      'resnet8'
      >>> network_name(Settings(model="wideresnet", **{"model.depth": 10, "model.width": 1}))
      'wideresnet depth 10 width 1'
    """
    return " ".join([settings.model, *(f"{name} {_short(value)}" for name, value in settings.model_options.changed().items())])


def _short(value: Any) -> str:
    """A value as a part of a name; the widths of many layers would be longer than a file's name may be.

    Example:
      >>> _short((0.5, 0.25)), _short(tuple((f"block{number}/conv1", 8) for number in range(9)))
      ('0.5,0.25', '9 values e2f63e85')
    """
    text = format_value(value)
    if len(text) <= LONGEST:
        return text
    return f"{len(value)} values {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _of_phases(settings: Settings) -> list[str]:
    """The name of a method of several phases, and what departs from it."""
    default = Settings(method=settings.method, init_from=settings.init_from)
    parts = [str(settings.method)]
    general = ["norm", "weight_bits", "gradient_clip", *RATE, "ema", "augment"]
    for slot in ("budget", "attack", "loss", "pruner", "optimizer"):
        if getattr(settings, slot) != getattr(default, slot):
            parts.append(told_in_words(settings, slot))
            changed = list(settings.options(slot).changed())
        else:
            values, others = settings.options(slot).values(), default.options(slot).values()
            changed = [name for name, value in values.items() if value != others.get(name)]
        parts += [told_in_words(settings, f"{slot}.{name}") for name in changed]
    parts += [told_in_words(settings, name) for name in general if getattr(settings, name) != getattr(default, name)]
    own = dict((phase.name, one) for phase, one in settings.in_phases())
    for phase, changes in settings.phases:
        parts += [f"{phase} {told_in_words(own[phase], name)}" for name, _ in changes]
    return parts


def told_in_words(settings: Settings, name: str) -> str:
    """A setting and its value as the names of arms tell them; an option by the name that it had when all kinds shared one.

    Example:
      >>> told_in_words(Settings(attack_steps=3), "attack.num_steps")
      'attack steps 3'
      >>> told_in_words(Settings(epsilon_max="8/255"), "budget.epsilon_max")
      'epsilon max 8/255'
    """
    value, (slot, dot, option) = settings.value(name), name.partition(".")
    if dot and value is not None and is_radius(types_of(type(settings.options(slot))).get(option)):
        value = format_radius(value)
    word = OLD_NAMES.get((slot, option), f"{slot} {option}") if dot else name
    return f"{word.replace('_', ' ')} {value}"


def columns_of(settings: Settings) -> dict[str, str | float | None]:
    """How a run was trained, as columns of its records, so that nobody has to read it out of a name.

    ``method`` is the method that the run names, or the published one that its budget and loss are of, empty where none is known;
    of a run of several phases the slots are those of the run; ``structure`` is ``US`` where single weights are pruned and ``S``
    where filters, channels or kernels are; ``train_attack``, ``train_norm`` and ``train_epsilon`` are of
    the examples that training saw, empty where there were none or none was prescribed.

    Example:
      >>> columns_of(Settings(budget="uniform", epsilon="8/255", attack="fgsm"))["train_epsilon"]
      0.03137254901960784
      >>> columns_of(Settings(budget="none"))["method"], columns_of(Settings(budget="none"))["train_attack"]
      ('nt', '')
    """
    budget, loss = settings.row("budget"), settings.kind("loss")
    return {
        "method": settings.method or (settings.row("loss").method if settings.budget == "uniform" else "") or budget.method,
        "pruner": settings.pruner,
        "structure": "S" if settings.options("pruner").values().get("structure") in STRUCTURES else "US",
        "budget": settings.budget if settings.attacks else "none",
        "loss": loss,
        "train_attack": settings.attack if settings.attacks else "",
        "train_norm": settings.norm if settings.attacks else "",
        "train_epsilon": settings.value("budget.epsilon") if settings.attacks else None,
    }


def _start(settings: Settings) -> list[str]:
    """What a run says of the network that it started from, if it did from one."""
    if settings.init_from is None:
        return []
    name, default = Path(settings.init_from).name or settings.init_from, Settings()
    told = [one for one in ("init_checkpoint", "init_masks") if getattr(settings, one) != getattr(default, one)]
    return [f"init from {name.replace(',', ' ')}", *(f"{one.replace('_', ' ')} {getattr(settings, one)}" for one in told)]


def short_names(arms: Iterable[str]) -> dict[str, str]:
    """Arm → its name without what all adversarial arms have in common.

    Example:
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

    Example:
      >>> process_of(Settings(ramp_end=0.2, frequency=50)), process_of(Settings(pruner="dense"))
      ('0-20% every 50', 'dense')
      >>> process_of(Settings(pruner="mine.pruners:gradual", ramp_begin=0.1))
      'mine.pruners:gradual 10-60%'
    """
    if settings.pruner in UNRAMPED:
        own = {} if _by_method(settings) else settings.options("pruner").changed()  # or its arm tells them
        told = [f"{name} {value}" for name, value in own.items()]
        return " ".join([settings.pruner, *told])
    ramp = f"{100 * settings.ramp_begin:g}-{100 * settings.ramp_end:g}%"
    extra: list[str] = [] if settings.schedule == "gradual" else [settings.schedule]
    known = row_of("pruner", settings.pruner).factory
    changed = settings.options("pruner").changed()
    extra += [str(value) if known else f"{name} {value}" for name, value in changed.items()]
    extra += [f"from {settings.initial_sparsity:g}"] if settings.initial_sparsity else []
    extra += [f"every {settings.frequency}"] if settings.frequency else []
    return " ".join([*([] if settings.pruner == "magnitude" else [settings.pruner]), ramp, *extra])
