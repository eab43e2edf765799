"""Attacks with their settings, as evaluation takes them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from bap_jax.attacks import (
    apgd,
    apgd_targeted,
    bap_deepfool,
    brendel_bethge,
    carlini_wagner,
    ddn,
    deepfool,
    fab,
    fab_targeted,
    fgsm,
    fmn,
    ho_fmn,
    noise,
    pgd,
    pgd0,
    sigma_zero,
    sparse_rs,
    square,
)
from bap_jax.attacks._inputs import AnyRadius, check_positive
from bap_jax.errors import SettingError
from bap_jax.evaluation.bound import BoundAttack
from bap_jax.evaluation.truncated import Truncated
from bap_jax.mathematics.objectives import dlr
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm, Threat, comparable


def named_threat(
    attack: str, *, norm: Norm = "linf", bounds: Bounds = Bounds(), name: str | None = None, **settings: Any
) -> Threat:
    """Any attack of the package by its name, with the settings of its function.

    Args:
      attack: one of :data:`ATTACKS`: ``pgd``, ``fgsm``, ``apgd-ce``, ``apgd-dlr``, ``apgd-t``, ``square``, ``noise``, ``pgd0``,
        ``sparse-rs`` with a budget; ``deepfool``, ``fab``, ``fab-t``, ``bb``, ``cw``, ``ddn``, ``fmn``, ``ho-fmn``,
        ``sigma-zero`` of minimal norm; ``deepfool-truncated`` and ``fgsm-truncated``, made once and cut to each budget.
      norm: one of those that the attack works in.
      bounds: the box.
      name: as results show it; by default the attack and the norm, e.g. ``fmn-l2``, with the settings that were given.
      settings: keywords of the attack's function in :mod:`bap_jax.attacks`.

    Returns:
      Threat. ``pgd0`` and ``sparse-rs`` change whole pixels: at radius ε in features they may change ⌊ε / channels⌋ of them.

    Raises:
      SettingError: no such attack, or a norm or setting that it does not have; no steps; a step size that is not above 0, or one
        in the norm's units beside one relative to ε.

    Example:
      >>> threat = named_threat("fmn", norm="l1", num_steps=50)
      >>> threat.name, threat.minimal
      ('fmn-50-l1', True)
    """
    if attack not in ATTACKS:
        raise SettingError("attack", attack, "one of " + ", ".join(ATTACKS))
    kind = ATTACKS[attack]
    if norm not in kind.norms:
        raise SettingError("norm", norm, f"{' or '.join(kind.norms)} with {attack}")
    takes = attack_settings(attack)
    for setting, value in settings.items():
        if setting not in takes:
            raise SettingError(setting, value, f"one of the settings of {attack}: {', '.join(takes)}")
    _check_lengths(kind.steps, settings)
    fixed = dict(kind.settings) | ({"norm": norm} if len(kind.norms) > 1 else {}) | {"bounds": bounds} | settings
    steps = fixed.get(kind.steps, kind.default_steps)
    repeats = settings.get("restarts", settings.get("num_targets", kind.repeats))
    grows = not (kind.minimal or kind.black_box or kind.truncated) and kind.default_steps > 1
    label = attack + (f"-{steps}" if kind.steps in settings else "") + (f"-x{repeats}" if settings.get("restarts", 1) > 1 else "")
    bound = BoundAttack(kind.function, tuple(fixed.items()), kind.radius)
    return Threat(
        name or f"{label}-{norm}",
        norm,
        bounds,
        kind.minimal,
        bound if kind.truncated is None else Truncated(bound, norm, bounds, minimal=kind.truncated == "nearest"),
        black_box=kind.black_box,
        stronger=BoundAttack(kind.function, tuple((fixed | {kind.steps: 2 * steps}).items()), kind.radius) if grows else None,
        cost=steps * kind.cost * repeats,
    )


def _check_lengths(steps: str, settings: Mapping[str, Any]) -> None:
    """Refuses, when an attack is named, how many steps it cannot take, and how long they cannot be."""
    number = comparable(settings.get(steps, 1))
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise SettingError(steps, number, "an integer ≥ 1")
    given = [name for name in ("step_size", "relative_step_size") if settings.get(name) is not None]
    for name in given:
        check_positive(name, settings[name])
    if len(given) == 2:
        raise SettingError("relative_step_size", settings["relative_step_size"], "no value beside step_size")


def attack_settings(attack: str) -> tuple[str, ...]:
    """The settings that :func:`named_threat` takes for an attack.

    Example:
      >>> attack_settings("fgsm")
      ('targeted', 'objective')
    """
    kind = ATTACKS[attack]
    given = {"logits_fn", "keys", "images", "labels", "norm", "bounds", "epsilon", "num_pixels", "keep", "settings"}
    names = [*inspect.signature(kind.function).parameters, *(inspect.signature(pgd).parameters if attack == "pgd" else ())]
    return tuple(name for name in dict.fromkeys(names) if name not in given)


class Kind(NamedTuple):
    """What is particular to an attack: its function, how its settings are named, and the norms that it works in."""

    function: Callable[..., AttackResult]
    norms: tuple[Norm, ...]
    default_steps: int
    settings: tuple[tuple[str, Any], ...] = ()
    radius: str | None = "epsilon"
    steps: str = "num_steps"
    black_box: bool = False
    repeats: int = 1
    cost: float = 1.0  # of a step, relative to one forward and backward pass
    truncated: Literal["nearest", "farthest"] | None = None  # made once, near or as far as the box, and cut to each budget

    @property
    def minimal(self) -> bool:
        return self.radius is None and self.truncated is None


def _relative_pgd(
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    *,
    epsilon: Array,
    num_steps: int = 20,
    step_size: float | None = None,
    relative_step_size: float | None = None,
    **settings: Any,
) -> AttackResult:
    step = relative_step_size * epsilon if relative_step_size is not None else step_size
    settings |= {"num_steps": num_steps, "step_size": step, "keep": "adversarial"}
    return pgd(logits_fn, keys, images, labels, epsilon=epsilon, **settings)


def _whole_pixels(function: Callable[..., AttackResult]) -> Callable[..., AttackResult]:
    @functools.wraps(function)
    def by_features(logits_fn, keys, images, labels, *, epsilon, **settings):
        channels = images.shape[-1] if images.ndim == 4 else 1
        num_pixels = jnp.floor(epsilon / channels + 1e-6).astype(jnp.int32)
        return function(logits_fn, keys, images, labels, num_pixels=num_pixels, **settings)

    return by_features


def _beyond_the_box(function: Callable[..., AttackResult]) -> Callable[..., AttackResult]:
    """An attack whose radius a protocol fixes, whatever the box."""

    @functools.wraps(function)
    def at_any_radius(logits_fn, *arguments, **settings):
        return function(AnyRadius(logits_fn), *arguments, **settings)

    return at_any_radius


_THREE: tuple[Norm, ...] = ("linf", "l2", "l1")
_FORWARD = 0.4
ATTACKS: Mapping[str, Kind] = MappingProxyType(
    {
        "pgd": Kind(_relative_pgd, (*_THREE, "rms"), 20),
        "fgsm": Kind(fgsm, (*_THREE, "rms"), 1),
        "apgd-ce": Kind(apgd, (*_THREE, "rms"), 100),
        "apgd-dlr": Kind(apgd, (*_THREE, "rms"), 100, (("objective", dlr),)),
        "apgd-t": Kind(apgd_targeted, (*_THREE, "rms"), 100, repeats=9),
        "square": Kind(square, _THREE, 5000, steps="num_queries", black_box=True, cost=_FORWARD),
        "noise": Kind(noise, (*_THREE, "l0", "rms"), 100, steps="num_samples", black_box=True, cost=_FORWARD),
        "pgd0": Kind(_whole_pixels(pgd0), ("l0",), 100, repeats=5),
        "sparse-rs": Kind(_whole_pixels(sparse_rs), ("l0",), 10000, steps="num_queries", black_box=True, cost=_FORWARD),
        "deepfool": Kind(deepfool, ("l2", "linf"), 100, (("reference", "label"), ("early_stop", True)), None, cost=9.0),
        "fab": Kind(fab, _THREE, 100, radius=None, cost=9.0),
        "fab-t": Kind(fab_targeted, _THREE, 100, radius=None, repeats=9),
        "bb": Kind(brendel_bethge, (*_THREE, "l0"), 1000, radius=None, cost=2.0),
        "cw": Kind(carlini_wagner, ("l2",), 1000, radius=None, repeats=9),
        "ddn": Kind(ddn, ("l2",), 100, radius=None),
        "fmn": Kind(fmn, (*_THREE, "l0"), 100, radius=None),
        "ho-fmn": Kind(ho_fmn, (*_THREE, "l0"), 100, radius=None, cost=2.0),
        "sigma-zero": Kind(sigma_zero, ("l0",), 1000, radius=None),
        "deepfool-truncated": Kind(
            bap_deepfool, ("rms",), 100, (("num_steps", 100), ("early_stop", True)), None, cost=9.0, truncated="nearest"
        ),
        "fgsm-truncated": Kind(_beyond_the_box(fgsm), ("linf",), 1, (("epsilon", 100.0),), None, truncated="farthest"),
    }
)
