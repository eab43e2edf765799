"""How far along a direction an example can go before it is misclassified."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import check_float32
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import misclassified
from bap_jax.mathematics.rows import expand
from bap_jax.types import Array, LogitsFn


class Margin(NamedTuple):
    """``fraction`` [B] of the direction in [0, 1]: 0 where the image itself is misclassified, 1 where nothing on the way is;
    ``found`` [B] bool: the point at ``fraction`` is misclassified."""

    fraction: Array
    found: Array


def margin_search(
    logits_fn: LogitsFn,
    images: Array,
    labels: Array,
    direction: Array,
    *,
    num_bisections: int = 6,
    grid: int | None = None,
) -> Margin:
    """Finds where ``images + t * direction``, t in [0, 1], starts to be misclassified, by forward passes alone.

    Bisection needs misclassification at t = 1 and returns the adversarial end of an interval of width ``2^-num_bisections``
    that holds *a* crossing. It is the smallest one only where misclassification is monotone along the direction; ``grid=n``
    tries the n points 1/n, 2/n, ..., 1 instead and returns the first that is misclassified.

    Args:
      logits_fn: images [B, ...] -> logits [B, K].
      images: [B, ...].
      labels: [B] int, the true labels.
      direction: [B, ...], the whole way to go, e.g. the perturbation of an unrestricted attack; both ends should lie in the
        bounds.
      num_bisections: forward passes after the two at the ends.
      grid: number of points; ``None`` for bisection.

    Returns:
      A :class:`Margin`.

    Raises:
      SettingError: shapes differ, images in half precision, ``num_bisections`` is negative or ``grid`` below 1.

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
    if direction.shape != images.shape:
        raise SettingError("direction", direction.shape, f"the shape of the images, {images.shape}")
    check_float32(images)
    if num_bisections < 0:
        raise SettingError("num_bisections", num_bisections, "an integer of at least 0")
    if grid is not None and grid < 1:
        raise SettingError("grid", grid, "an integer of at least 1, or None")

    def wrong(points: Array) -> Array:
        return misclassified(logits_fn(points), labels)

    def wrong_at(fraction: Array) -> Array:
        return wrong(images + expand(fraction, images) * direction)

    zero, one = (jnp.full(labels.shape, value, jnp.float32) for value in (0.0, 1.0))
    wrong_before = wrong(images)  # not wrong_at(zero): a one-step attack made this very forward pass, and XLA shares it

    if grid is None:
        found = wrong_at(one)

        def halve(_, ends):
            low, high = ends
            middle = 0.5 * (low + high)
            wrong = wrong_at(middle)
            return jnp.where(wrong, low, middle), jnp.where(wrong, middle, high)

        fraction = jax.lax.fori_loop(0, num_bisections, halve, (zero, one))[1]
    else:

        def visit(i, seen):
            first, met = seen
            wrong = wrong_at(one * ((i + 1) / grid))
            return jnp.where(wrong & ~met, (i + 1) / grid, first), met | wrong

        fraction, found = jax.lax.fori_loop(0, grid, visit, (one, jnp.zeros(labels.shape, bool)))

    fraction = jnp.where(wrong_before, 0.0, jnp.where(found, fraction, 1.0))
    return Margin(fraction, found | wrong_before)
