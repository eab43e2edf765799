"""Cut and scale: per-example budgets from per-example norms."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.per_example import expand, mean_of_real, quantile_of_real
from bap_jax.types import Array, Norm

CutoffKind = Literal["mean", "quantile", "running-mean", "constant", "off"]


class Cutoff(NamedTuple):
    """Where norms are cut. Write one with :func:`parse_cutoff` or the constructor.

    ``value`` is the level of a quantile in [0, 1], the decay of a running mean in [0, 1), the constant itself in input units, and
    unused otherwise.
    """

    kind: CutoffKind
    value: float = 0.0


def check_cutoff(cutoff: Cutoff) -> Cutoff:
    """Refuses an unknown kind or a value outside its range.

    Raises:
      SettingError: naming what would be right.
    """
    kind, value = cutoff
    if kind in ("mean", "off"):
        fits, expected = value == 0, "no value after it"
    elif kind == "quantile":
        fits, expected = 0 <= value <= 1, "a level in [0, 1] after it, e.g. quantile:0.5"
    elif kind == "running-mean":
        fits, expected = 0 <= value < 1, "a decay in [0, 1) after it, e.g. running-mean:0.99"
    elif kind == "constant":
        fits, expected = 0 < value < float("inf"), "a radius above 0 after it, in input units, e.g. constant:0.3"
    else:
        raise SettingError("cutoff", kind, "one of mean, quantile:LEVEL, running-mean:DECAY, constant:RADIUS, off")
    if not fits:
        raise SettingError("cutoff", f"{kind}:{value:g}", f"{kind} with {expected}")
    return cutoff


def parse_cutoff(text: str) -> Cutoff:
    """Reads ``mean``, ``quantile:0.5``, ``running-mean:0.99``, ``constant:0.3`` or ``off``.

    Raises:
      SettingError: anything else.

    Example:
      >>> parse_cutoff("quantile:0.5")
      Cutoff(kind='quantile', value=0.5)
    """
    kind, _, number = text.partition(":")
    try:
        value = float(number) if number else (-1.0 if kind in ("quantile", "running-mean", "constant") else 0.0)
    except ValueError:
        raise SettingError("cutoff", text, "a number after the colon") from None
    return check_cutoff(Cutoff(kind, value))  # type: ignore[arg-type]


def parse_wrong(text: str) -> float:
    """What share of the cut and scaled radius, rho * c, an example gets that is misclassified already: ``cutoff`` 1, ``zero`` 0,
    ``floor:0.5`` the half.

    Raises:
      SettingError: anything else.

    Example:
      >>> parse_wrong("cutoff"), parse_wrong("zero"), parse_wrong("floor:0.5")
      (1.0, 0.0, 0.5)
    """
    kind, _, number = text.partition(":")
    if text in ("cutoff", "zero"):
        return float(text == "cutoff")
    try:
        share = float(number) if kind == "floor" else -1.0
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SettingError("wrong", text, "cutoff, zero, or floor:FRACTION with a fraction in [0, 1], e.g. floor:0.5")
    return share


class RunningMean(NamedTuple):
    """A mean carried through training: plain while there are few batches, then exponential."""

    mean: Array  # float32 scalar
    num_batches: Array  # int32 scalar

    @staticmethod
    def empty() -> RunningMean:
        return RunningMean(jnp.float32(0.0), jnp.int32(0))

    def add(self, value: Array, decay: float | Array) -> RunningMean:
        keep = jnp.minimum(decay, self.num_batches / (self.num_batches + 1.0))
        return RunningMean(keep * self.mean + (1.0 - keep) * value, self.num_batches + 1)


def cutoff_value(norms: Array, weight: Array, cutoff: Cutoff, running: RunningMean) -> tuple[Array, RunningMean]:
    """The radius c at which norms are cut, from a whole batch.

    Args:
      norms: [B] the norms of the unrestricted perturbations, of the *global* batch.
      weight: [B] 1 for real examples, 0 for padding and others that are to have no say.
      cutoff: the rule.
      running: the mean so far; only the rule ``running-mean`` changes it.

    Returns:
      c, a float32 scalar (infinite for ``off``), and the running mean.

    Example:
      >>> import jax.numpy as jnp
      >>> norms, weight = jnp.array([0.1, 0.3, 9.0]), jnp.array([1.0, 1.0, 0.0])
      >>> rules = [parse_cutoff(text) for text in ("mean", "quantile:1", "constant:0.4")]
      >>> [round(float(cutoff_value(norms, weight, rule, RunningMean.empty())[0]), 2) for rule in rules]
      [0.2, 0.3, 0.4]

    References:
      Xie et al., Blind adversarial pruning, 2020, arXiv 2004.05913: the batch mean (``cal_delta``) or a constant; the quantile
      and the running mean are ours.
    """
    check_cutoff(cutoff)
    if cutoff.kind == "off":
        return jnp.float32(jnp.inf), running
    if cutoff.kind == "constant":
        return jnp.float32(cutoff.value), running
    if cutoff.kind == "quantile":
        return quantile_of_real(norms, weight, cutoff.value), running
    mean = mean_of_real(norms, weight)
    if cutoff.kind == "mean":
        return mean, running
    after, heard = running.add(mean, cutoff.value), jnp.any(weight > 0)  # of a batch with nobody to hear nothing is learnt
    running = RunningMean(*(jnp.where(heard, new, old) for new, old in zip(after, running, strict=True)))
    return running.mean, running


def cutoff_scale_epsilon(norms: Array, cutoff: float | Array, scale: float | Array) -> Array:
    """The nonuniform budget: ``epsilon_i = scale * min(norm_i, cutoff)``.

    Args:
      norms: [B], at least 0.
      cutoff: scalar radius c in the same units, infinite for no cut.
      scale: rho, at least 0.

    Returns:
      [B].

    Example:
      >>> import jax.numpy as jnp
      >>> cutoff_scale_epsilon(jnp.array([1.0, 4.0]), cutoff=2.0, scale=0.5).tolist()
      [0.5, 1.0]

    References:
      Xie et al., Blind adversarial pruning, 2020, arXiv 2004.05913.
    """
    return scale * jnp.minimum(norms, cutoff)


def cutoff_scale_perturbation(perturbation: Array, cutoff: float | Array, scale: float | Array, *, norm: Norm = "rms") -> Array:
    """Cuts and scales the perturbations themselves, as the authors do.

    L2 and RMS: the whole perturbation shrinks to the cutoff, ``delta_i * min(1, c / norm_i)``. L-infinity: every element is
    clipped to [-c, c]. Then all is multiplied by ``scale``.

    Args:
      perturbation: [B, ...].
      cutoff: scalar radius c in the units of ``norm``, infinite for no cut.
      scale: rho, at least 0, a scalar or [B].
      norm: ``"rms"`` (L2 / sqrt(D)), ``"l2"``, ``"l1"`` or ``"linf"``.

    Returns:
      [B, ...], of norm ``scale * min(norm_i, c)``.

    Raises:
      SettingError: another norm.

    Example:
      >>> import jax.numpy as jnp
      >>> cutoff_scale_perturbation(jnp.array([[3.0, 4.0]]), cutoff=2.5, scale=0.5, norm="l2").tolist()
      [[0.75, 1.0]]

    References:
      Xie et al., Blind adversarial pruning, 2020, arXiv 2004.05913; public repository Lixin-Qian/BAP.
    """
    if norm == "linf":
        return expand(scale, perturbation) * jnp.clip(perturbation, -cutoff, cutoff)
    if norm not in ("rms", "l2", "l1"):
        raise SettingError("norm", norm, "'rms', 'l2', 'l1' or 'linf'")
    norms = jnp.maximum(per_example_norm(perturbation, norm), 1e-6)  # the authors' floor: sqrt(1e-12)
    factor = scale * jnp.minimum(1.0, cutoff / norms)
    return perturbation * expand(factor, perturbation)
