"""What can fill the slots of a run: one row for every kind of network, budget, attack, pruner, optimiser and loss.

A row names its factory as text, so that reading this table, and the help of the command line, imports no jax.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from bap_jax.errors import SettingError
from bap_jax.plugins import import_object, is_import_path
from bap_jax.runs import network_options as networks
from bap_jax.runs import options
from bap_jax.runs.options import Options, Own, types_of
from bap_jax.runs.parsing import Counts, Numbers, Widths, of_sequences, of_type

_NONE: Mapping[str, Any] = MappingProxyType({})


class Row(NamedTuple):
    """A kind that a slot can be filled with."""

    factory: str  # module:function, called as function(settings, info, options); of a network its class
    options: type[Options]
    label: str = ""  # how arms of the kind are called
    leaves: Mapping[str, Any] = _NONE
    # options that the state carries, so that runs which differ in them share a compile and may train together: each with a value
    # that a step can be compiled with
    auto: Mapping[str, str] = _NONE  # what the choice ``auto`` of another setting means with it
    method: str = ""  # the published method that it makes of a run, if it makes one
    ramped: bool = True  # of a pruner: whether it follows the ramp
    score: str = ""  # of a pruner: module:function that finds its masks before the first step, see Phase.score
    attacks: bool = True  # of a budget: whether it makes adversarial examples; of a loss: whether it needs them
    shares: bool = True  # whether all that a compiled step needs of its numbers is in the state, so that runs share steps


_MAKE = "bap_jax.runs.factories:"
_MADRY = {"loss": "madry"}
_RATE = {"learning_rate": 1e-3}


def _pruner(function: str, kind: type[Options]) -> Row:
    """A pruner with times of its own, built for one sparsity and one length."""
    return Row(_MAKE + function, kind, ramped=False, shares=False)


def _scored(function: str, kind: type[Options]) -> Row:
    """A pruner that finds its masks once, before the first step, and then keeps them."""
    return Row(_MAKE + "scored", kind, ramped=False, score="bap_jax.runs.scoring:" + function)


SLOTS: Mapping[str, Mapping[str, Row]] = MappingProxyType(
    {
        "model": {
            "mlp": Row("bap_jax.models.mlp:MLP", networks.MLP),
            "lenet5": Row("bap_jax.models.lenet:LeNet5", networks.LeNet5),
            "merkle_cnn": Row("bap_jax.models.merkle_cnn:MerkleCNN", networks.MerkleCNN),
            "fitnet4": Row("bap_jax.models.fitnet:FitNet4", networks.FitNet4),
            "vgg16": Row("bap_jax.models.vgg:VGG16", networks.VGG16),
            "vgg16_bn": Row("bap_jax.models.vgg:VGG16BN", networks.VGG16BN),
            "vgg16_survey": Row("bap_jax.models.vgg:SurveyVGG16", networks.SurveyVGG16),
            "resnet8": Row("bap_jax.models.resnet:ResNet8", networks.ResNet8),
            "resnet18": Row("bap_jax.models.resnet:ResNet18", networks.ResNet18),
            "resnet34": Row("bap_jax.models.resnet:ResNet34", networks.ResNet34),
            "resnet50": Row("bap_jax.models.resnet:ResNet50", networks.ResNet50),
            "preactresnet18": Row("bap_jax.models.preact_resnet:PreActResNet18", networks.PreActResNet18),
            "wideresnet": Row("bap_jax.models.wide_resnet:WideResNet", networks.WideResNet),
            "dm_wideresnet": Row("bap_jax.models.wide_resnet:DMWideResNet", networks.DMWideResNet),
        },
        "budget": {
            "cutoff-scale": Row(
                _MAKE + "cutoff_scale",
                options.CutoffScale,
                "blind",
                {"scale": 1.2, "wrong": "cutoff", "epsilon_max": 1.0},
                method="bap",
            ),
            "uniform": Row(_MAKE + "uniform", options.Uniform, "uniform", {"epsilon": 0.1}, method="ap"),
            "mma": Row(
                _MAKE + "mma",
                options.MMA,
                "MMA",
                {"epsilon_min": 0.1, "epsilon_max": 1.0},
                {"loss": "mma", "objective": "soft-margin"},
                "mma",
            ),
            "iaat": Row(
                _MAKE + "iaat",
                options.IAAT,
                "IAAT",
                {"epsilon": 0.1, "epsilon_step": 0.1, "epsilon_rate": 0.1, "epsilon_warmup": 1 / 11},
                _MADRY,
                "iaat",
            ),
            "cat": Row(
                _MAKE + "cat", options.CAT, "CAT", {"epsilon_step": 0.1, "epsilon_max": 1.0, "label_factor": 1.0}, _MADRY, "cat"
            ),
            "fat": Row(_MAKE + "fat", options.FAT, "FAT", {"epsilon": 0.1}, _MADRY, "fat"),
            "none": Row(_MAKE + "no_budget", options.Clean, "clean", auto={"loss": "clean"}, method="nt", attacks=False),
        },
        "attack": {
            "pgd": Row(_MAKE + "several_steps", options.PGD),
            "fgsm": Row(_MAKE + "one_step", options.FGSM),
            "rs-fgsm": Row(_MAKE + "one_step_from_the_ball", options.RSFGSM),
            "n-fgsm": Row(_MAKE + "one_step_from_noise", options.NFGSM),
        },
        "pruner": {
            "magnitude": Row(_MAKE + "magnitude", options.Magnitude),
            "structured": Row(_MAKE + "structured", options.Structured, shares=False),
            "dense": Row(_MAKE + "dense", options.PrunerOptions, ramped=False),
            "fixed": Row(_MAKE + "fixed", options.Layered, ramped=False),
            "at_start": _pruner("at_start", options.AtStart),
            "hydra": _pruner("hydra", options.Hydra),
            "s2ap": _pruner("s2ap", options.S2AP),
            "harp": _pruner("harp", options.HARP),
            "edge_popup": _pruner("edge_popup", options.Scored),
            "admm": _pruner("admm", options.ADMM),
            "robust_admm": _pruner("robust_admm", options.RobustADMM),
            "flying_bird": _pruner("flying_bird", options.FlyingBird),
            "flying_bird_plus": _pruner("flying_bird_plus", options.FlyingBirdPlus),
            "twin_rep": _pruner("twin_rep", options.TwinRep),
            "robust_bird": _pruner("robust_bird", options.RobustBird),
            "mad": _scored("mad", options.MAD),
            "sensitive_filters": _scored("sensitive_filters", options.SensitiveFilters),
        },
        "optimizer": {
            "adam": Row("bap_jax.runs.optimizer:adam", options.Rated, leaves=_RATE),
            "adamw": Row("bap_jax.runs.optimizer:adamw", options.Rated, leaves=_RATE),
            "sgd": Row("bap_jax.runs.optimizer:sgd", options.SGD, leaves=_RATE),
        },
        "loss": {
            "mix": Row(_MAKE + "mix", options.Mix, attacks=False),
            "madry": Row(_MAKE + "madry", options.Smoothed),
            "trades": Row(_MAKE + "trades", options.Divergence, leaves={"beta": 6.0}, auto={"objective": "kl"}, method="trades"),
            "mart": Row(_MAKE + "mart", options.Divergence, leaves={"beta": 6.0}, method="mart"),
            "mma": Row(_MAKE + "mma_loss", options.Smoothed),
            "clean": Row(_MAKE + "clean", options.Smoothed, attacks=False),
            "distill": Row(_MAKE + "distill", options.Distill, attacks=False, shares=False),
            "distill_hsic": Row(_MAKE + "distill_hsic", options.DistillHSIC, attacks=False, shares=False),
        },
    }
)
DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "model": "mlp",
        "budget": "cutoff-scale",
        "attack": "pgd",
        "pruner": "magnitude",
        "optimizer": "adam",
        "loss": "auto",
    }
)
OF_STEP = tuple(slot for slot in SLOTS if slot != "model")  # the slots that a train step is made of, beside the network
_FOREIGN = Row("", Own, attacks=True)  # of a name that stands in no table

# Settings that once had one name for all kinds: where each stands now, as an option of the kind in that slot. epsilon_max is
# three options: of cutoff-scale, of mma and of cat.
MOVED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **{
            name: ("budget", name)
            for name in [
                "epsilon",
                "search",
                "search_steps",
                "num_bisections",
                "path",
                "halving",
                "example",
                "cutoff",
                "cutoff_over",
                "wrong",
                "scale",
                "epsilon_max",
                "epsilon_min",
                "epsilon_step",
                "epsilon_rate",
                "epsilon_warmup",
                "label_factor",
                "tau_rises",
            ]
        },
        "attack_steps": ("attack", "num_steps"),
        "step_size": ("attack", "step_size"),
        "objective": ("attack", "objective"),
        **{name: ("loss", name) for name in ("adversarial_weight", "beta", "label_smoothing")},
        **{name: ("pruner", name) for name in ("scope", "distribution")},
        **{name: ("optimizer", name) for name in ("momentum", "nesterov", "learning_rate", "weight_decay")},
    }
)
OLD_NAMES = MappingProxyType({place: name for name, place in MOVED.items()})
OLD_FORM = ("settings", "ramp", "bounds")  # what factories of one's own were called with
_OF_BUILD = ("num_classes", "conv", "axis_name", "parent", "name")  # what a network is told that is no option of a run


def row_of(slot: str, name: str) -> Row:
    """The row of a kind; a name that stands in no table has one without a factory, its options being what it was given."""
    return SLOTS[slot].get(name, _FOREIGN)


def names_of(slot: str) -> tuple[str, ...]:
    """What a slot can be filled with, by name."""
    auto = ("auto",) if DEFAULTS[slot] == "auto" else ()
    return (*auto, *SLOTS[slot])


def check_name(slot: str, name: str) -> None:
    """Refuses a name that means nothing in a slot; of code of one's own, imports it.

    Raises:
      SettingError: naming what would be right.
    """
    if is_import_path(name):
        import_object(f"--{slot}", name)
    elif name not in names_of(slot):
        raise SettingError(f"--{slot}", name, "one of " + ", ".join(names_of(slot)) + " or package.module:factory")


def old_default(name: str) -> Any:
    """What a setting that has moved was by default."""
    slot, option = MOVED[name]
    kinds = [row.options for row in SLOTS[slot].values() if option in types_of(row.options)]
    return getattr(kinds[0](), option)


def holders(slot: str, option: str) -> list[str]:
    """The kinds that have an option of that name.

    >>> holders("budget", "epsilon_max"), holders("loss", "beta")
    (['cutoff-scale', 'mma', 'cat'], ['trades', 'mart'])
    """
    return [name for name, row in SLOTS[slot].items() if option in types_of(row.options)]


def place_of(name: str) -> tuple[str, str] | None:
    """The slot and the option that a name of a setting means, an old one or a dotted one; None for any other.

    >>> place_of("attack_steps"), place_of("budget.epsilon"), place_of("seed")
    (('attack', 'num_steps'), ('budget', 'epsilon'), None)
    """
    if name in MOVED:
        return MOVED[name]
    slot, dot, option = name.partition(".")
    return (slot, option) if dot and slot in SLOTS else None


def told_options(slot: str, kind: str, start: Options, told: Mapping[str, Any], where: str = "") -> Options:
    """The options of a kind with the values that were told, each of its own type.

    Args:
      slot, kind: what is filled with what.
      start: options to begin with.
      told: option -> value.
      where: the end of an error, such as ``, in config.json``.

    Raises:
      SettingError: the kind has no such option, or one of another type.

    >>> told_options("budget", "uniform", options.Uniform(), {"epsilon": "8/255"}).epsilon
    0.03137254901960784
    >>> told_options("budget", "uniform", options.Uniform(), {"scale": 1.0})
    Traceback (most recent call last):
        ...
    bap_jax.errors.SettingError: budget.scale = 1.0: expected nothing with --budget uniform; it is an option of cutoff-scale
    """
    if isinstance(start, Own):
        return start.with_values(told)
    types = types_of(type(start))
    for name, value in told.items():
        if name not in types:
            others = " and ".join(holders(slot, name))
            expected = f"nothing with --{slot} {kind}; " + (
                f"it is an option of {others}" if others else "there is no such option"
            )
            raise SettingError(f"{slot}.{name}", value, expected + where)
    typed = {name: of_type(f"{slot}.{name}", value, types[name], where) for name, value in told.items()}
    return type(start)(**start.values() | typed)


class Parameter(NamedTuple):
    """An option of a factory of one's own."""

    annotation: Any
    default: Any  # inspect.Parameter.empty where it has to be given


def takes_settings(factory: Callable) -> bool:
    """Whether a factory of one's own is of the old form, called as ``factory(settings, ramp, bounds)``."""
    return tuple(inspect.signature(factory).parameters)[:3] == OLD_FORM


def parameters_of(slot: str, factory: Callable) -> dict[str, Parameter]:
    """The options of a factory of one's own: the keywords that it takes; of one of the old form, what its settings can say.

    Of a network's factory all that :func:`bap_jax.models.build` does not decide itself, and sequences of numbers as comma lists.

    >>> def rings(info, *, radius: float = 0.5, count=3): ...
    >>> {name: parameter.annotation for name, parameter in parameters_of("budget", rings).items()}
    {'radius': <class 'float'>, 'count': <class 'int'>}
    """
    if slot != "model" and takes_settings(factory):
        return {option: _of_old(name) for name, (of, option) in MOVED.items() if of == slot}
    try:
        hints = typing.get_type_hints(factory, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    found = {}
    taken = list(inspect.signature(factory).parameters.items())
    for name, parameter in taken if slot == "model" else taken[1:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            continue
        if slot == "model" and name in _OF_BUILD:
            continue
        untold = parameter.default in (None, parameter.empty)
        annotation = hints.get(name, int | float | str if untold else type(parameter.default))
        if parameter.default is None and name not in hints:
            annotation = annotation | None
        if slot == "model":
            annotation = _written(annotation, parameter.default)
            annotation = Numbers | None if name in ("mean", "std") else annotation
            annotation = Widths | None if (name, parameter.default) == ("widths", None) and name not in hints else annotation
        found[name] = Parameter(annotation, parameter.default)
    return found


def _written(annotation: Any, default: Any) -> Any:
    """The type of a keyword of a network, as a command line can read it."""
    if annotation is Any:
        return int | float | str | None
    if annotation in (tuple, list) and default:
        return Counts if all(type(one) is int for one in default) else Numbers
    return of_sequences(annotation)


def _of_old(name: str) -> Parameter:
    slot, option = MOVED[name]
    kind = next(row.options for row in SLOTS[slot].values() if option in types_of(row.options))
    return Parameter(types_of(kind)[option], old_default(name))


def check_own(slot: str, name: str, own: Own) -> None:
    """Refuses options that a factory of one's own does not take, and the lack of one that it needs.

    Raises:
      SettingError: naming the option and those that there are.
    """
    parameters = parameters_of(slot, import_object(f"--{slot}", name))
    for option, value in own.values().items():
        if option not in parameters:
            known = ", ".join(parameters) or "none at all"
            raise SettingError(f"--{slot}.{option.replace('_', '-')}", value, f"an option of {name}: {known}")
    for option, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and option not in own.values():
            raise SettingError(f"--{slot}.{option.replace('_', '-')}", None, f"a value, without which {name} cannot be called")
