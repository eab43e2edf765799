"""The step of the Brendel-Bethge attack: towards the image as far as a trust region, the box and the boundary allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.types import Array

MinimalNorm = Literal["linf", "l2", "l1", "l0"]
OUTER = MappingProxyType(
    {"l2": 10, "l1": 10, "l0": 10, "linf": 18}
)  # halvings of how much the norm weighs against the step's length
INNER = 22  # and of the multiplier of the plane
_LONGEST = 1e7  # of the multiplier, with the normal of length 1 and the box of width 1


def nearest_step(
    offset: Array, normal: Array, asked: Array, radius: Array, low: Array, high: Array, *, norm: MinimalNorm
) -> Array:
    """The step d that brings ``offset`` + d, a perturbation, near to 0 in a norm, without losing the far side of a plane.

        minimise ‖u + d‖_p  subject to  ⟨g, d⟩ ≤ c,  ‖d‖₂ ≤ r,  low ≤ d ≤ high

    By duality: for a weight ν of the norm against ‖d‖²/2 and a multiplier t of the plane the features part, and each has its
    minimiser in closed form. ⟨g, d⟩ falls with t and ‖d‖₂ rises with ν, so both are found by halving; for L∞, ν is what the box
    of the perturbation shrinks by instead. L0 is a choice of features, which has a gap: it may come as far beyond the plane as
    one feature brings it. Where the plane is out of reach, d goes as far towards it as radius and box allow.

    Args:
      offset: [B, D], u, inside the box: ``low`` ≤ −u ≤ ``high``.
      normal: [B, D], g; a row of zeros gets no step.
      asked: [B], c.
      radius: [B], r > 0.
      low: [B, D], at most 0.
      high: [B, D], at least 0; the widest room is of the order of 1.
      norm: ``linf``, ``l2``, ``l1`` or ``l0``.

    Returns:
      [B, D].

    Example:
      >>> import jax.numpy as jnp
      >>> u, g, box = jnp.array([[0.5, 0.5]]), jnp.array([[1.0, 0.0]]), jnp.ones((1, 2))
      >>> nearest_step(u, g, jnp.array([-0.25]), jnp.array([9.0]), -box, box, norm="l2").round(2)
      Array([[-0.5, -0.5]], dtype=float32)
      >>> nearest_step(u, -g, jnp.array([0.25]), jnp.array([9.0]), -box, box, norm="l2").round(2)
      Array([[-0.25, -0.5 ]], dtype=float32)
    """
    length = jnp.linalg.norm(normal, axis=1)
    slope = normal / jnp.where(length > 0, length, 1)[:, None]
    bound = asked / jnp.where(length > 0, length, 1)
    move, scale = jax.vmap(_MOVES[norm]), _SCALES[norm]

    def reached(step: Array) -> Array:
        return jnp.sum(slope * step, axis=1) <= bound + 1e-6

    def short(step: Array) -> Array:
        return jnp.linalg.norm(step, axis=1) <= radius + 1e-7

    def beyond_plane(weight: Array) -> Array:
        """The minimiser at a weight [B], with the smallest multiplier that comes beyond the plane."""
        free = move(offset, slope, weight, 0 * weight, low, high)
        multiplier = _last(lambda t: ~reached(move(offset, slope, weight, t, low, high)), _multiplier, INNER, like=weight)
        held = move(offset, slope, weight, multiplier.above, low, high)
        if norm != "l0":  # between the last two tries the best step is a mean of theirs, up to the plane
            before = move(offset, slope, weight, multiplier.below, low, high)
            held = _mean(before, held, jnp.sum(slope * before, axis=1) - bound, jnp.sum(slope * (before - held), axis=1))
        return jnp.where(reached(free)[:, None], free, held)

    def fits(step: Array) -> Array:
        return short(step) & reached(step)

    def limited() -> Array:
        weight = _last(lambda weight: fits(beyond_plane(weight)), scale, OUTER[norm], like=bound)
        step = beyond_plane(weight.below)
        if norm != "l0":  # likewise, up to the radius
            farther = beyond_plane(weight.above)
            more = farther - step
            slack = jnp.maximum(radius**2 - jnp.sum(step**2, axis=1), 0)
            half, square = jnp.sum(step * more, axis=1), jnp.maximum(jnp.sum(more**2, axis=1), 1e-30)
            part = (jnp.sqrt(half**2 + square * slack) - half) / square
            step = jnp.where(reached(farther)[:, None], _mean(step, farther, part, jnp.ones_like(part)), step)
        # where nothing fits, the shortest way to the plane, as far as it goes
        straight = _last(lambda t: short(_straight(slope, t, low, high)), _multiplier, INNER, like=bound).below
        return jnp.where(fits(step)[:, None], step, _straight(slope, straight, low, high))

    # what the radius does not limit takes one search instead of a search of searches: those are left out where no row needs them
    free = beyond_plane(scale(jnp.ones_like(bound)))
    free_fits = fits(free)
    step = jax.lax.cond(jnp.all(free_fits), lambda: free, limited)
    return jnp.where((length > 0)[:, None], jnp.where(free_fits[:, None], free, step), 0)


class _Halved(NamedTuple):
    """Where a condition stops holding along a scale."""

    below: Array  # [B] the last value known to hold
    above: Array  # [B] the first known not to


def _last(holds: Callable[[Array], Array], scale: Callable[[Array], Array], halvings: int, *, like: Array) -> _Halved:
    """Halves [0, 1], per row; ``holds`` at 0 and not at 1 is taken for granted."""

    def halve(interval: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        below, above = interval
        middle = (below + above) / 2
        yes = holds(scale(middle))
        return (jnp.where(yes, middle, below), jnp.where(yes, above, middle)), None

    (below, above), _ = jax.lax.scan(halve, (jnp.zeros_like(like), jnp.ones_like(like)), None, length=halvings)
    return _Halved(scale(below), scale(above))


def _mean(first: Array, second: Array, part: Array, whole: Array) -> Array:
    """From the first step part / whole of the way to the second, rows [B, D] by themselves."""
    share = jnp.clip(part / jnp.where(whole > 0, whole, 1), 0, 1)
    return first + jnp.where(whole > 0, share, 1)[:, None] * (second - first)


def _between(smallest: float, largest: float, share: Array) -> Array:
    """Evenly spaced in the logarithm."""
    return smallest * (largest / smallest) ** share


def _multiplier(share: Array) -> Array:
    return _between(1e-6, _LONGEST, share)


def _straight(slope: Array, multiplier: Array, low: Array, high: Array) -> Array:
    """The shortest steps beyond planes, inside the box."""
    return jnp.clip(-multiplier[:, None] * slope, low, high)


# The minimiser of ν·φ(u + d) + ‖d‖²/2 + t·⟨g, d⟩ in the box, of one row.


def _l2(offset: Array, slope: Array, weight: Array, multiplier: Array, low: Array, high: Array) -> Array:
    return jnp.clip(-weight * offset - multiplier * slope, low, high)  # the weight is ν / (1 + ν), t / (1 + ν) the multiplier


def _l1(offset: Array, slope: Array, weight: Array, multiplier: Array, low: Array, high: Array) -> Array:
    wanted = offset - multiplier * slope
    return jnp.clip(wanted - jnp.clip(wanted, -weight, weight) - offset, low, high)


def _l0(offset: Array, slope: Array, weight: Array, multiplier: Array, low: Array, high: Array) -> Array:
    pull = multiplier * slope
    back, moved = -offset, jnp.clip(-pull, low, high)
    of_back, of_moved = (step * (step / 2 + pull) for step in (back, moved))
    return jnp.where(of_back <= of_moved + weight, back, moved)


def _linf(offset: Array, slope: Array, weight: Array, multiplier: Array, low: Array, high: Array) -> Array:
    low, high = jnp.maximum(low, -weight - offset), jnp.minimum(high, weight - offset)  # the weight is the norm to be had
    return jnp.clip(-multiplier * slope, low, high)


_MOVES: Mapping[str, Callable[..., Array]] = MappingProxyType({"l2": _l2, "l1": _l1, "l0": _l0, "linf": _linf})
_SCALES: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {  # how much the norm weighs, by a share in [0, 1]
        "l2": lambda share: _between(1e-8, 1.0, share),
        "l1": lambda share: _between(1e-8, 1e3, share),
        "l0": lambda share: _between(1e-8, 1e3, share),
        "linf": lambda share: 1 - share,
    }
)
