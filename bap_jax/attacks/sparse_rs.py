"""Sparse-RS: random search over which k pixels to change and to which corner colours, without gradients."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import admit, check_keys
from bap_jax.attacks.pgd0 import by_pixel, check_finite_box, check_pixels
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import cross_entropy, margin_loss, rankable, successful
from bap_jax.mathematics.per_example import choose
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn

# Until which query (of 10,000) the share of pixels that change at once is alpha over the divisor; over 20 beyond.
_SCHEDULE = ((50, 2), (200, 4), (500, 5), (1000, 6), (2000, 8), (4000, 10), (6000, 12), (8000, 15))
_LAST_DIVISOR = 20


def sparse_rs(
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    *,
    num_pixels: int | Array,
    bounds: Bounds = Bounds(),
    num_queries: int = 10000,
    alpha: float = 0.3,
    targeted: bool = False,
) -> AttackResult:
    """Black-box search for k pixels and corner colours of the box that fool the network.

    It starts with k random pixels, each channel at the lower or upper bound at random. At query t, m = max(⌊α(t)·k⌋, 1) of the
    changed pixels get their colours back and m others get random corner colours; where m = 1, one other than the pixel's own. The
    change is kept where it raises the objective (the margin loss; the cross-entropy of the wanted class if ``targeted``) or is
    adversarial. α(t) is ``alpha`` over 2, 4, 5, 6, 8, 10, 12, 15, 20 up to t = 50, 200, 500, 1000, 2000, 4000, 6000, 8000 and
    beyond, t counted as if ``num_queries`` were 10,000.

    **Pixels, not features.** A pixel is all channels at one place: the last axis of images [B, H, W, C]; images of fewer
    dimensions have one channel. ``l0`` in this package counts features, so k pixels of C channels are an ``l0`` perturbation of
    up to k·C.

    What holds: rows do not influence each other; a row that is found is left alone, and the search ends when all are; k = 0
    gives the images back exactly. A network that this attack fools and a gradient attack does not hides its gradients.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; nothing is differentiated.
      keys: [B] typed keys, one per row.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      num_pixels: k, an integer or [B] integers; may be traced. More than all but one
        count as all but one, since there must be others to exchange them for.
      bounds: the box, finite.
      num_queries: points judged in all, the first random one included (the images themselves are judged besides), ≥ 1.
      alpha: the share of the k pixels that changes at once, before the schedule divides it, in (0, 1].
      targeted: make the network answer ``labels`` instead of anything else.

    Returns:
      AttackResult: ``images`` is adversarial where ``found``, elsewhere the point with the best objective (an example that is
      adversarial already is returned as it is); ``loss`` [num_queries, B] is the best objective after each query.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def darker_than_half(images):
      ...     mean = images.mean(axis=(1, 2, 3))[:, None]
      ...     return jnp.concatenate([0.5 - mean, mean - 0.5], axis=1)
      >>> images, keys = jnp.full((1, 4, 4, 1), 0.4), jax.random.split(jax.random.key(0), 1)
      >>> result = sparse_rs(darker_than_half, keys, images, jnp.array([0]), num_pixels=3, num_queries=100)
      >>> result.found, int((result.images != images).sum())
      (Array([ True], dtype=bool), 3)

    References:
      Croce et al. 2022, "Sparse-RS: a versatile framework for query-efficient sparse black-box adversarial attacks"; constants
      as in fra31/sparse-rs, which draws the same places of the lists of changed and unchanged pixels for the whole batch.
    """
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    _check(keys, images, num_pixels, bounds, num_queries, alpha)
    original = by_pixel(images)
    batch, places, channels = original.shape
    lower, upper = (by_pixel(jnp.broadcast_to(jnp.asarray(side, images.dtype), images.shape)) for side in bounds)
    budget = jnp.clip(jnp.broadcast_to(jnp.asarray(num_pixels, jnp.int32), labels.shape), 0, places - 1)
    place = jnp.arange(places, dtype=jnp.int32)[None, :]

    def judge(pixels: Array) -> tuple[Array, Array]:
        logits = logits_fn(pixels.reshape(images.shape))
        objective = -cross_entropy(logits, labels) if targeted else margin_loss(logits, labels)
        return rankable(objective), successful(logits, labels, targeted=targeted)

    def colour(pixels: Array, index: Array, high: Array) -> Array:
        """One pixel of each row gets the corner colour that ``high`` [B, C] says."""
        here = (place == index[:, None])[:, :, None]
        return jnp.where(here, jnp.where(high[:, None, :], upper, lower), pixels)

    def exchange(step: Array, carry: tuple[Array, Array], query_keys: Array, count: Array) -> tuple[Array, Array]:
        """One changed pixel of each row gets its colour back and one unchanged pixel gets a new one.

        A row of ``order`` lists its places: first the changed ones, then the others. The two exchange their places in it and go
        to the front of their part, where later steps of the query do not draw from.
        """
        order, pixels = carry
        words = jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, step), (channels + 3,)))(query_keys)
        back = _below(words[:, 0], budget - step) + step  # in step … k − 1
        fresh = _below(words[:, 1], places - budget - step) + budget + step  # in k + step … P − 1
        front, middle = jnp.broadcast_to(step, back.shape), budget + step
        reverted, changed = _read(order, back), _read(order, fresh)
        moved = _write(order, back, _read(order, front))
        moved = _write(moved, fresh, _read(order, middle))
        moved = _write(_write(moved, front, changed), middle, reverted)
        high = words[:, 3:] >> 31 == 1
        own, low, top = (jnp.take_along_axis(x, changed[:, None, None], axis=1)[:, 0] for x in (original, lower, upper))
        same = jnp.all(own == jnp.where(high, top, low), axis=1)
        high = jnp.where((same & (count == 1))[:, None], high ^ _some(words[:, 2], channels), high)
        repainted = jnp.where((place == reverted[:, None])[:, :, None], original, pixels)
        repainted = colour(repainted, changed, high)
        acts = step < count
        return choose(acts, moved, order), choose(acts, repainted, pixels)

    def ask(search: _Search) -> _Search:
        share = Fraction(alpha).limit_denominator(1000)
        count = share.numerator * budget // (share.denominator * _divisor(search.query, num_queries))
        count = jnp.minimum(jnp.maximum(count, 1), jnp.minimum(budget, places - budget))
        count = jnp.where(search.found, 0, count)
        query_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, search.query)
        step = partial(exchange, query_keys=query_keys, count=count)
        order, pixels = jax.lax.fori_loop(0, jnp.max(count), step, (search.order, search.pixels))
        objective, hit = judge(pixels)
        accepted = ~search.found & (budget > 0) & (hit | (objective > search.objective))
        objective = jnp.where(accepted, objective, search.objective)
        return _Search(
            search.query + 1,
            choose(accepted, order, search.order),
            choose(accepted, pixels, search.pixels),
            objective,
            search.found | (accepted & hit),
            search.losses.at[search.query].set(objective),
        )

    def begin() -> _Search:
        def draw(key: Array) -> tuple[Array, Array]:
            order_key, colour_key = jax.random.split(jax.random.fold_in(key, 0))
            order = jax.random.permutation(order_key, jnp.arange(places, dtype=jnp.int32))
            return order, jax.random.bernoulli(colour_key, shape=(places, channels))

        order, high = jax.vmap(draw)(keys)
        chosen = jnp.zeros((batch, places), bool).at[jnp.arange(batch)[:, None], order].set(place < budget[:, None])
        pixels = jnp.where(chosen[:, :, None], jnp.where(high, upper, lower), original)
        (clean, wrong), (objective, hit) = judge(original), judge(pixels)
        objective = jnp.where(wrong, clean, objective)
        losses = jnp.broadcast_to(objective[None, :], (num_queries, batch))
        return _Search(jnp.int32(1), order, choose(wrong, original, pixels), objective, wrong | hit, losses)

    def unfinished(search: _Search) -> Array:
        return (search.query < num_queries) & jnp.any(~search.found & (budget > 0))

    search = jax.lax.while_loop(unfinished, ask, begin())
    losses = jnp.where(jnp.arange(num_queries)[:, None] < search.query, search.losses, search.objective[None, :])
    return give(search.pixels.reshape(images.shape), search.found, losses)


class _Search(NamedTuple):
    query: Array  # how many points were judged
    order: Array  # [B, P] int32: the places of a row, the k changed ones first
    pixels: Array  # [B, P, C] the best point so far
    objective: Array  # [B] its objective
    found: Array  # [B] it is adversarial
    losses: Array  # [num_queries, B]


def _divisor(query: Array, num_queries: int) -> Array:
    """What divides alpha at a query, the schedule stretched from 10,000 queries to ``num_queries``."""
    divisors = [divisor for _, divisor in _SCHEDULE] + [_LAST_DIVISOR]
    result = jnp.int32(divisors[0])
    for (limit, divisor), following in zip(_SCHEDULE, divisors[1:], strict=True):
        first = -(-(limit + 1) * num_queries // 10000)  # the first query that counts as one beyond the limit
        result = result + jnp.where(query >= first, following - divisor, 0)
    return result


def _below(words: Array, count: Array) -> Array:
    """Random words [B] as integers in 0 … count − 1 (0 where there is no such integer)."""
    share = (words >> 8).astype(jnp.float32) / 2**24
    return jnp.clip((share * count.astype(jnp.float32)).astype(jnp.int32), 0, jnp.maximum(count - 1, 0))


def _some(words: Array, channels: int) -> Array:
    """[B, C] bools, not all False, every such pattern equally likely (of the first 20 channels)."""
    drawn = min(channels, 20)
    pattern = 1 + _below(words, jnp.full(words.shape, 2**drawn - 1))
    return (pattern[:, None] >> jnp.minimum(jnp.arange(channels), 31)[None, :]) & 1 == 1


def _read(order: Array, index: Array) -> Array:
    return jnp.take_along_axis(order, index[:, None], axis=1)[:, 0]


def _write(order: Array, index: Array, values: Array) -> Array:
    return jnp.where(jnp.arange(order.shape[1])[None, :] == index[:, None], values[:, None], order)


def _check(
    keys: Array,
    images: Array,
    num_pixels: int | Array,
    bounds: Bounds,
    num_queries: int,
    alpha: float,
) -> None:
    check_keys(keys, images)
    check_pixels(num_pixels, images)
    check_finite_box(bounds)
    if not isinstance(num_queries, int) or num_queries < 1:
        raise SettingError("num_queries", num_queries, "an integer ≥ 1")
    if not 0 < alpha <= 1:
        raise SettingError("alpha", alpha, "a share of the pixels in (0, 1]")
