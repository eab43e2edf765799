"""AutoAttack: the field's standard cascade of attacks, with its published settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from bap_jax.attacks import apgd, apgd_targeted, fab, fab_targeted, square
from bap_jax.errors import SettingError
from bap_jax.evaluation.bound import BoundAttack
from bap_jax.evaluation.cascade import Cascade, Stage
from bap_jax.mathematics.objectives import dlr
from bap_jax.types import Bounds, Norm

Version = Literal["standard", "plus", "rand"]
AUTOATTACK: Mapping[str, Version] = MappingProxyType(  # the name of an attack -> its version
    {"autoattack": "standard", "autoattack-plus": "plus", "autoattack-rand": "rand"}
)
_STEPS, _QUERIES, _EOT_SAMPLES = 100, 5000, 20


def autoattack(
    norm: Norm = "linf",
    *,
    version: Version = "standard",
    bounds: Bounds = Bounds(),
    attacks: tuple[str, ...] | None = None,
    randomized: bool = False,
    num_steps: int = _STEPS,
    num_queries: int = _QUERIES,
    name: str | None = None,
) -> Cascade:
    """The cascade of Croce and Hein, each attack on the examples that those before it left standing.

    ``standard``, L∞ and L2: APGD-CE (1 run), APGD-T (9 targets), FAB-T (9 targets), Square. L1: APGD-CE (5 runs), APGD-T (5
    targets), both with the schedule of large ε, FAB-T (9), Square. ``plus``: APGD-CE, APGD-DLR and FAB (5 runs each), Square,
    APGD-T, FAB-T (9 targets each). ``rand``: APGD-CE and APGD-DLR, on a randomised network averaged over 20 evaluations per
    step. With fewer classes there are as many targets as wrong classes.

    Args:
      norm: ``linf``, ``l2`` or, ``standard`` alone, ``l1``.
      version: ``standard``, ``plus`` or ``rand``.
      bounds: the box.
      attacks: a list of one's own, in order, of ``apgd-ce``, ``apgd-dlr``, ``apgd-t``, ``fab``, ``fab-t``, ``square``, with the
        numbers of runs and targets that the version has (``plus`` has them all).
      randomized: the network draws random numbers: ``predict(params, images, keys)`` gives one draw per key. On a deterministic
        network the average over evaluations is one evaluation, so ``rand`` costs no more than its two attacks.
      num_steps: gradient steps of each run; the published 100.
      num_queries: of Square; the published 5,000.
      name: as results show it; by default e.g. ``autoattack-linf`` or ``autoattack-plus-l2``.

    Returns:
      Cascade, which :func:`bap_jax.evaluation.evaluate` takes in place of a threat.

    Raises:
      SettingError: a norm or version that was not published, or an attack of another name.

    Example:
      >>> [(stage.name, stage.attempts) for stage in autoattack("l2").stages]
      [('apgd-ce', 1), ('apgd-t', 9), ('fab-t', 9), ('square', 1)]

    References:
      Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks";
      L1: Croce and Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers"; the settings of the
      versions: github.com/fra31/auto-attack.
    """
    lists = {
        "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
        "rand": ("apgd-ce", "apgd-dlr"),
    }
    if version not in lists:
        raise SettingError("version", version, " or ".join(lists))
    if norm not in ("linf", "l2", "l1"):
        raise SettingError("norm", norm, "linf, l2 or l1")
    if norm == "l1" and version != "standard" and attacks is None:
        raise SettingError("norm", norm, f"linf or l2 with the version {version}; for l1 there is standard alone")
    known = _stages(norm, version, bounds, randomized, num_steps, num_queries)
    chosen = lists[version] if attacks is None else attacks
    for attack in chosen:
        if attack not in known:
            raise SettingError("attacks", attack, "one of " + ", ".join(known))
    if not chosen or len(set(chosen)) < len(chosen):
        raise SettingError("attacks", list(chosen), "at least one attack, and none twice")
    label = "autoattack" if version == "standard" else f"autoattack-{version}"
    label += "" if attacks is None else f"[{'+'.join(chosen)}]"
    return Cascade(name or f"{label}-{norm}", norm, bounds, tuple(known[attack] for attack in chosen))


def _stages(norm: Norm, version: Version, bounds: Bounds, randomized: bool, num_steps: int, num_queries: int) -> dict[str, Stage]:
    runs = 5 if norm == "l1" or version == "plus" else 1
    box = (("bounds", bounds), ("norm", norm))
    common = (*box, ("num_steps", num_steps))
    ascent = common + ((("large_epsilon_schedule", True),) if norm == "l1" else ())
    ascent += (("random_logits", True), ("eot_samples", _EOT_SAMPLES)) if randomized and version == "rand" else ()
    targets = 5 if norm == "l1" else 9
    single = (("num_targets", 1),)
    ranked, queries = (*ascent, ("objective", dlr)), (*box, ("num_queries", num_queries))
    attempt = {
        "apgd-ce": BoundAttack(apgd, ascent, number="first_restart"),
        "apgd-dlr": BoundAttack(apgd, ranked, number="first_restart"),
        "apgd-t": BoundAttack(apgd_targeted, ascent + single, number="first_target", first=1),
        "fab": BoundAttack(fab, common, number="first_restart"),
        "fab-t": BoundAttack(fab_targeted, common + single, number="first_target", first=1),
        "square": BoundAttack(square, queries, number="first_restart"),
    }
    stages = (
        Stage("apgd-ce", attempt["apgd-ce"], runs, cost=num_steps),
        Stage("apgd-dlr", attempt["apgd-dlr"], runs, cost=num_steps, least_classes=3),
        Stage("apgd-t", attempt["apgd-t"], targets, cost=num_steps, least_classes=4, targets=True),
        Stage("fab", attempt["fab"], runs, cost=9.0 * num_steps, anywhere=True),
        Stage("fab-t", attempt["fab-t"], 9, cost=num_steps, targets=True, anywhere=True),
        Stage("square", attempt["square"], 1, True, cost=0.4 * num_queries),
    )
    return {stage.name: stage for stage in stages}
