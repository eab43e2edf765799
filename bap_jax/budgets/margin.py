"""How far along a way an example can go before it is misclassified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import check_float32
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import misclassified
from bap_jax.mathematics.per_example import expand
from bap_jax.types import Array, LogitsFn

Halving = Literal["log", "linear"]
Way = Callable[[Array], Array]  # fractions of the way [B], in [0, 1] -> points [B, ...]
LEAST = 1 / 512  # of the way: where halving in logarithms begins, and the least fraction it can find


class Margin(NamedTuple):
    """``fraction`` [B] of the way in [0, 1]: 0 where the image itself is misclassified, 1 where no point that was tried is;
    ``found`` [B] bool: the point at ``fraction`` is misclassified; ``wrong`` [B] bool: the image itself is.
    """

    fraction: Array
    found: Array
    wrong: Array


def margin_search(
    logits_fn: LogitsFn,
    images: Array,
    labels: Array,
    direction: Array | Way,
    *,
    num_bisections: int = 6,
    halving: Halving = "linear",
    grid: int | None = None,
) -> Margin:
    """Finds where the way of an example, t in [0, 1], starts to be misclassified, by forward passes alone.

    Halving returns the adversarial end of an interval that holds *a* crossing. It is the smallest one only where
    misclassification is monotone along the way. ``"linear"`` halves [0, 1] down to a width of ``2^-num_bisections``, and needs
    misclassification at t = 1. ``"log"`` halves the logarithm of t between 1/512 and 1, so that every margin is known to the
    same factor, ``512^(2^-num_bisections)`` (1.10 for 6, where linear halving would take 12 to tell 1/512 from 2/512); it asks
    nothing of the far end, and finds what any point that it tries tells it. A margin below 1/512 of the way is that.
    ``grid=n`` tries the n points 1/n, 2/n, ..., 1 instead and returns the first that is misclassified.

    Args:
      logits_fn: images [B, ...] -> logits [B, K].
      images: [B, ...].
      labels: [B] int, the true labels.
      direction: [B, ...], the whole way to go, straight, e.g. the perturbation of an unrestricted attack; both ends should lie
        in the bounds. Or a way of another shape: a function from fractions [B] to points [B, ...], such as those of
        :mod:`bap_jax.budgets.way`.
      num_bisections: forward passes after the one on the images, and with ``"linear"`` the one at the far end.
      halving: ``"linear"`` or ``"log"``.
      grid: number of points; ``None`` for halving.

    Returns:
      A :class:`Margin`.

    Raises:
      SettingError: shapes differ, images in half precision, an unknown ``halving``, ``num_bisections`` is negative, or 0 in
        logarithms, ``grid`` below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> logits_fn = lambda x: jnp.concatenate([x, 0.6 - x], axis=-1)  # class 0 above 0.3
      >>> images, labels = jnp.array([[0.5], [0.1], [0.9]]), jnp.array([0, 0, 0])
      >>> margin = margin_search(logits_fn, images, labels, jnp.array([[-0.5], [0.0], [0.1]]), grid=8)
      >>> margin.fraction.tolist(), margin.found.tolist()
      ([0.5, 0.0, 1.0], [True, True, False])

    References:
      Ours: PGD and a search along its path, in place of the DeepFool of Xie et al., Blind adversarial pruning, 2020, arXiv
      2004.05913.
    """
    if not callable(direction) and direction.shape != images.shape:
        raise SettingError("direction", direction.shape, f"the shape of the images, {images.shape}")
    check_float32(images)
    if halving not in get_args(Halving):
        raise SettingError("halving", halving, "'log' or 'linear'")
    if num_bisections < (1 if halving == "log" and grid is None else 0):
        least = "1, in logarithms" if halving == "log" else "0"
        raise SettingError("num_bisections", num_bisections, f"an integer of at least {least}")
    if grid is not None and grid < 1:
        raise SettingError("grid", grid, "an integer of at least 1, or None")

    def wrong_at(fraction: Array) -> Array:
        points = direction(fraction) if callable(direction) else images + expand(fraction, images) * direction
        return misclassified(logits_fn(points), labels)

    zero, one = (jnp.full(labels.shape, value, jnp.float32) for value in (0.0, 1.0))
    # not wrong_at(zero): a one-step attack made this very forward pass, and XLA shares it
    wrong_before = misclassified(logits_fn(images), labels)

    if grid is None:

        def halve(_, ends):
            low, high = ends
            middle = 0.5 * (low + high) if halving == "linear" else jnp.sqrt(low * high)
            wrong = wrong_at(middle)
            return jnp.where(wrong, low, middle), jnp.where(wrong, middle, high)

        far = wrong_at(one) if halving == "linear" else None
        low = zero if halving == "linear" else LEAST * one
        fraction = jax.lax.fori_loop(0, num_bisections, halve, (low, one))[1]
        found = fraction < 1 if far is None else far
    else:

        def visit(i, seen):
            first, met = seen
            wrong = wrong_at(one * ((i + 1) / grid))
            return jnp.where(wrong & ~met, (i + 1) / grid, first), met | wrong

        fraction, found = jax.lax.fori_loop(0, grid, visit, (one, jnp.zeros(labels.shape, bool)))

    fraction = jnp.where(wrong_before, 0.0, jnp.where(found, fraction, 1.0))
    return Margin(fraction, found | wrong_before, wrong_before)
