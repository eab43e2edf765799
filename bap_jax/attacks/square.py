"""Square: random search over square windows, without gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks._inputs import admit, check_keys, check_steps
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import margin, margin_loss, rankable, successful
from bap_jax.mathematics.per_example import choose, expand
from bap_jax.mathematics.projections import clip_to_bounds, project_l1_ball_in_box
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn

SquareNorm = Literal["linf", "l2", "l1"]

# Up to which proposal (of 10,000) a window covers initial_fraction over 1, 2, 4, 8, …; over 512 beyond the last.
_LIMITS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    norm: SquareNorm = "linf",
    bounds: Bounds = Bounds(),
    num_queries: int = 5000,
    restarts: int = 1,
    first_restart: int | Array = 0,
    targeted: bool = False,
    initial_fraction: float = 0.8,
    rescale_schedule: bool = False,
) -> AttackResult:
    """Black-box search: change one square window at a time and keep what lowers the margin.

    At proposal i a window covers the share p of the H×W picture: p = ``initial_fraction`` over 1, 2, 4, …, 512, changing after
    i = 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000. Its side is round(√(p·H·W)), at least 1 and at most min(H, W); its
    corner ⌊U·(H − side)⌋, ⌊U·(W − side)⌋, as in the public code, which never puts a smaller window at the last row or column.

    ``linf``: the start is vertical stripes, x₀ ± ε with a sign per column and channel. A proposal adds ±2ε in the window, a sign
    per channel, and clips to x₀ ± ε and the box.

    ``l2``: δ consists of bumps η, positive in one half of their window and negative in the other, upright or lying. The start
    tiles the picture with them, five or more to a side, with a sign for each and channel, scaled to ε. A proposal takes two
    windows of odd side ≥ 3: the first gets ±η plus its own direction δ/‖δ‖, scaled to the norm that both held and what the box
    had cut off, the second 0; the whole is scaled to ε and clipped to the box.

    ``l1``: the same with L1 norms and more pointed bumps; instead of the scaling δ is projected on the ball within the box.

    A proposal is kept if the margin falls or the point is adversarial; an example that is, is left alone from then on, and the
    search ends when all are.

    What holds: nothing is differentiated; every example has its own windows and signs, drawn from its own key, so that rows do
    not influence each other; with ε = 0 the images come back exactly.

    Args:
      logits_fn: images [B, ...] to logits [B, K].
      keys: [B] typed keys, one per row.
      images: [B, H, W, C] or [B, H, W] (one channel) floats inside ``bounds``. Vectors [B, D], for ``linf`` only, are pictures
        of one row: stripes are single features and windows intervals of round(p·D) features.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      norm: ``linf``, ``l2`` or ``l1``.
      bounds: the box. A side may be infinite.
      num_queries: proposals, ≥ 1. The start is one query more, and the images themselves are judged besides.
      restarts: how often to start anew, for the examples not found yet.
      first_restart: the number of the first restart here, so that a run may be continued by another call; may be traced.
      targeted: make the network answer ``labels`` instead of anything else.
      initial_fraction: the share of the picture that the first windows cover, in (0, 1].
      rescale_schedule: stretch or shrink the schedule of p from 10,000 proposals to ``num_queries``.

    Returns:
      AttackResult: ``images`` is adversarial where ``found``, elsewhere the point with the best margin; an example that is
      adversarial already is returned as it is. ``loss`` [num_queries, B] is the best objective before each proposal: max_{k≠y}
      z_k − z_y, or z_t − max_{k≠t} z_k if ``targeted``, positive on success; of the restart that found, or of the best.
      :func:`queries_used` reads the number of queries off it.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def darker_than_half(images):
      ...     mean = images.mean(axis=(1, 2, 3))[:, None]
      ...     return jnp.concatenate([0.5 - mean, mean - 0.5], axis=1)
      >>> images, keys = jnp.full((1, 8, 8, 1), 0.45), jax.random.split(jax.random.key(0), 1)
      >>> square(darker_than_half, keys, images, jnp.array([0]), epsilon=0.1, num_queries=100).found
      Array([ True], dtype=bool)

    References:
      Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search"; the start
      and L1 as in fra31/auto-attack, where all examples of a batch share windows. Its L2 start leaves a border free where H is no
      multiple of 5; here the tiles are centred and as many as fit.
    """
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    _check(keys, images, norm, num_queries, restarts, first_restart, initial_fraction)
    original = _as_pictures(images)
    batch, height, width, _ = original.shape
    sides = _sides(height, width, initial_fraction, norm)
    thresholds = [-(-(limit + 1) * num_queries // 10000) if rescale_schedule else limit + 1 for limit in _LIMITS]
    box = Bounds(*(_side_of_the_box(end, images, original) for end in bounds))
    propose, start = _linf(original, epsilon, box) if norm == "linf" else _bumps(original, epsilon, box, norm, sides)

    def judge(pictures: Array) -> tuple[Array, Array]:
        logits = logits_fn(pictures.reshape(images.shape))
        objective = margin(logits, labels) if targeted else margin_loss(logits, labels)
        return rankable(objective), successful(logits, labels, targeted=targeted)

    def run(restart: int | Array, wrong: Array) -> _Search:
        run_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, restart)
        start_keys, step_keys = (jax.vmap(jax.random.fold_in, (0, None))(run_keys, half) for half in (0, 1))

        def ask(search: _Search) -> _Search:
            """One more query of every row; those that are found stay."""
            window = sum((search.step >= limit for limit in thresholds), jnp.int32(0))
            side = sum(((window == number) * size for number, size in enumerate(sides)), jnp.int32(0))
            proposed = propose(jax.vmap(jax.random.fold_in, (0, None))(step_keys, search.step), search.pictures, window, side)
            objective, hit = judge(proposed)
            accepted = ~search.found & (hit | (objective > search.objective))
            return _Search(
                search.step + 1,
                choose(accepted, proposed, search.pictures),
                jnp.where(accepted, objective, search.objective),
                search.found | hit,
                search.losses.at[search.step].set(search.objective),
            )

        begin = choose(wrong, original, start(start_keys))
        objective, hit = judge(begin)
        losses = jnp.zeros_like(objective, shape=(num_queries, batch))
        search = _Search(jnp.int32(0), begin, objective, wrong | hit, losses)
        search = jax.lax.while_loop(lambda search: (search.step < num_queries) & ~jnp.all(search.found), ask, search)
        asked = jnp.arange(num_queries)[:, None] < search.step
        return search._replace(losses=jnp.where(asked, search.losses, search.objective[None, :]))

    def again(best: _Search, restart: Array) -> tuple[_Search, None]:
        """Restarts after the first: examples that are found are taken out and keep what they have."""
        new = run(restart, best.found)
        wins = ~best.found & (new.found | (new.objective > best.objective))
        return _Search(
            best.step,
            choose(wins, new.pictures, best.pictures),
            jnp.where(wins, new.objective, best.objective),
            best.found | new.found,
            jnp.where(wins[None, :], new.losses, best.losses),
        ), None

    _, wrong = judge(original)
    best = run(first_restart, wrong)
    if restarts > 1:
        best, _ = jax.lax.scan(again, best, first_restart + jnp.arange(1, restarts))
    return give(best.pictures.reshape(images.shape), best.found, best.losses)


def queries_used(result: AttackResult) -> Array:
    """How many queries of :func:`square` each example took: until the first success, or all of them.

    The start counts as one; examples that were adversarial before it count one too.

    Args:
      result: of :func:`square`, with one restart.

    Returns:
      [B] int32, from 1 to num_queries + 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.types import AttackResult
      >>> losses = jnp.array([[-2.0, -1.0], [-1.0, -1.0], [0.5, -0.5]])
      >>> queries_used(AttackResult(jnp.zeros((2, 1)), jnp.array([True, False]), losses))
      Array([3, 4], dtype=int32)
    """
    return 1 + jnp.sum(jnp.where(result.found[None, :], result.loss <= 0, True), axis=0, dtype=jnp.int32)


Propose = Callable[[Array, Array, Array, Array], Array]  # (keys [B], pictures, window's number, its side) -> pictures
Start = Callable[[Array], Array]  # keys [B] -> pictures


class _Search(NamedTuple):
    step: Array  # how many proposals were judged
    pictures: Array  # [B, H, W, C] the best point so far
    objective: Array  # [B] its objective
    found: Array  # [B] it is adversarial
    losses: Array  # [num_queries, B]


def _linf(original: Array, epsilon: float | Array, box: Bounds) -> tuple[Propose, Start]:
    _, height, width, channels = original.shape
    radius = expand(epsilon, original)

    def start(keys: Array) -> Array:
        stripes = jax.vmap(lambda key: jax.random.rademacher(key, (1, width, channels), original.dtype))(keys)
        return clip_to_bounds(original + radius * stripes, box)

    def propose(keys: Array, pictures: Array, window: Array, side: Array) -> Array:
        words = _words(keys, 2 + -(-channels // 32))
        inside = _rows(words[:, 0], height, side)[1][:, :, None] & _rows(words[:, 1], width, side)[1][:, None, :]
        change = 2 * radius * _signs(words[:, 2:], channels, original.dtype)
        moved = jnp.where(inside[:, :, :, None], pictures + change, pictures)
        return clip_to_bounds(jnp.clip(moved, original - radius, original + radius), box)

    return propose, start


def _bumps(original: Array, epsilon: float | Array, box: Bounds, norm: SquareNorm, sides: Sequence[int]) -> tuple[Propose, Start]:
    """L2 and L1. Everything is computed on whole pictures, zero outside of the windows: no slices of traced sizes."""
    _, height, width, channels = original.shape
    order = 2 if norm == "l2" else 1
    radius = expand(epsilon, original)
    numbers = jnp.arange(max(sides) + 2, dtype=original.dtype)
    heights = jnp.cumsum(jnp.where(numbers > 0, 1 / jnp.maximum(numbers, 1) ** (2 * (3 - order)), 0))  # Σ_{m ≤ n} 1/m² or 1/m⁴
    weights = jnp.asarray([_half_weights(side, order) for side in sides], original.dtype)  # [sides, 2]

    def size(values: Array, axes: tuple[int, ...]) -> Array:
        total = jnp.sum(jnp.square(values) if order == 2 else jnp.abs(values), axis=axes, keepdims=True)
        return jnp.sqrt(total) if order == 2 else total

    def bump(first: tuple[Array, Array], second: tuple[Array, Array], lying: Array, window: Array, side: Array) -> Array:
        """η [B, H, W] of norm 1: its height at a place is that of the farther of the two coordinates, as it falls outwards."""

        def profiles(places: Array, inside: Array) -> tuple[Array, Array, Array]:
            upper = places < side // 2
            centre = jnp.where(upper, side // 2 // 2, side // 2 + (side - side // 2) // 2)
            weight = jnp.where(upper, weights[window, 0], -weights[window, 1])
            halved, plain = (
                heights[side // 2 + 1] - heights[jnp.where(inside, jnp.abs(places - c), 0)] for c in (centre, side // 2)
            )
            return halved, plain, jnp.where(inside, weight, 0)

        (cut_h, plain_h, weight_h), (cut_w, plain_w, weight_w) = profiles(*first), profiles(*second)
        lying = lying[:, None]
        along_h, along_w = jnp.where(lying, plain_h, cut_h), jnp.where(lying, cut_w, plain_w)
        weight_h = jnp.where(lying, first[1].astype(weight_h.dtype), weight_h)
        weight_w = jnp.where(lying, weight_w, second[1].astype(weight_w.dtype))
        return jnp.minimum(along_h[:, :, None], along_w[:, None, :]) * weight_h[:, :, None] * weight_w[:, None, :]

    def settle(delta: Array) -> Array:
        if norm == "l2":
            return clip_to_bounds(original + radius * delta / jnp.maximum(size(delta, (1, 2, 3)), 1e-12), box)
        shorter = jnp.asarray(epsilon, original.dtype) * (1 - 1e-6)  # so that rounding does not leave the ball
        return clip_to_bounds(original + project_l1_ball_in_box(delta, original, shorter, box), box)

    def start(keys: Array) -> Array:
        side = max(min(height, width) // 5, 1)
        counts = height // side, width // side
        tile = jnp.asarray(_eta(side, order), original.dtype)

        def draw(key: Array) -> Array:
            sign_key, turn_key = jax.random.split(key)
            signs = jax.random.rademacher(sign_key, (*counts, 1, 1, channels), original.dtype)
            lying = jax.random.bernoulli(turn_key, shape=(*counts, 1, 1))
            tiles = jnp.where(lying, tile.T[None, None], tile[None, None])[..., None] * signs  # [h, w, side, side, C]
            picture = tiles.transpose(0, 2, 1, 3, 4).reshape(counts[0] * side, counts[1] * side, channels)
            free = height - picture.shape[0], width - picture.shape[1]
            return jnp.pad(picture, (*((left // 2, left - left // 2) for left in free), (0, 0)))

        delta = jax.vmap(draw)(keys)
        if norm == "l1":  # at least ε long, whatever the units
            delta = delta * jnp.maximum(radius / size(delta, (1, 2, 3)), 1)
        return settle(delta)

    def propose(keys: Array, pictures: Array, window: Array, side: Array) -> Array:
        words = _words(keys, 5 + -(-channels // 32))
        first = _rows(words[:, 0], height, side), _rows(words[:, 1], width, side)
        second = _rows(words[:, 2], height, side), _rows(words[:, 3], width, side)
        one, two = ((rows[1][:, :, None] & columns[1][:, None, :])[..., None] for rows, columns in (first, second))
        delta = pictures - original
        here = jnp.where(one, delta, 0)
        shape = bump(*first, words[:, 4] >> 31 == 1, window, side)[..., None]
        value = shape * _signs(words[:, 5:], channels, original.dtype) + here / (1e-12 + size(here, (1, 2)))
        whole, both = size(delta, (1, 2, 3)), size(jnp.where(one | two, delta, 0), (1, 2, 3))
        left = jnp.maximum(radius**order - whole**order, 0) / channels + both**order
        length = jnp.sqrt(left) if order == 2 else left * channels
        value = value / (1e-12 + size(value, (1, 2))) * length
        return settle(jnp.where(one, value, jnp.where(two, 0, delta)))

    return propose, start


def _words(keys: Array, count: int) -> Array:
    return jax.vmap(lambda key: jax.random.bits(key, (count,)))(keys)  # [B, count] uint32


def _rows(words: Array, length: int, side: Array) -> tuple[Array, Array]:
    """A window's rows or columns, from one random word: places relative to the corner, and which are inside, [B, length]."""
    side = jnp.minimum(side, length)  # a vector is a picture of one row
    share = (words >> 8).astype(jnp.float32) / 2**24
    corner = (share * (length - side).astype(jnp.float32)).astype(jnp.int32)
    places = jnp.arange(length, dtype=jnp.int32)[None, :] - corner[:, None]
    return places, (places >= 0) & (places < side)


def _signs(words: Array, channels: int, dtype: jnp.dtype) -> Array:
    """One sign per channel from the bits of random words [B, ⌈C/32⌉], [B, 1, 1, C]."""
    bits = words[:, :, None] >> jnp.arange(32, dtype=words.dtype)[None, None, :] & 1
    signs = 1 - 2 * bits.reshape(words.shape[0], -1)[:, :channels].astype(dtype)
    return signs[:, None, None, :]


def _sides(height: int, width: int, initial_fraction: float, norm: SquareNorm) -> tuple[int, ...]:
    """The windows' sides, from the first to the last."""
    most = max(height, width) if height == 1 else min(height, width)
    sides = []
    for halvings in range(len(_LIMITS) + 1):
        share = initial_fraction / 2**halvings
        side = max(round(share * width if height == 1 else math.sqrt(share * height * width)), 1 if norm == "linf" else 3)
        side = min(side, most)
        if norm != "linf" and side % 2 == 0:
            side += 1 if side < most else -1
        sides.append(side)
    return tuple(sides)


def _rectangle(rows: int, columns: int, order: int) -> np.ndarray:
    """A bump [rows, columns] of norm 1: 1/(j + 1)² (L1: 1/(j + 1)⁴) added on the squares of side 2j + 1 round the centre."""
    away = np.maximum(np.abs(np.arange(rows) - rows // 2)[:, None], np.abs(np.arange(columns) - columns // 2)[None, :])
    last = max(rows // 2, columns // 2)
    steps = 1 / np.arange(1.0, last + 2) ** (2 if order == 2 else 4)
    bump = np.array([steps[j:].sum() for j in range(last + 1)])[away]
    return bump / (np.sum(bump**order) ** (1 / order) if bump.size else 1)


def _eta(side: int, order: int) -> np.ndarray:
    """η: a bump in the upper ⌊side/2⌋ rows and a negative one below, of norm 1."""
    values = np.concatenate([_rectangle(side // 2, side, order), -_rectangle(side - side // 2, side, order)])
    return values / np.sum(np.abs(values) ** order) ** (1 / order)


def _half_weights(side: int, order: int) -> tuple[float, float]:
    """What the two halves of η are multiples of: their values at the centres over the unscaled bump's."""
    eta, upper = _eta(side, order), side // 2
    top = np.sum(1 / np.arange(1.0, side // 2 + 2) ** (2 if order == 2 else 4))
    return abs(eta[upper // 2, side // 2]) / top, abs(eta[upper + (side - upper) // 2, side // 2]) / top


def _as_pictures(images: Array) -> Array:
    """[B, H, W, C]; a vector becomes one row of pixels."""
    if images.ndim == 2:
        return images[:, None, :, None]
    return images[..., None] if images.ndim == 3 else images


def _side_of_the_box(end: float | Array, images: Array, pictures: Array) -> Array:
    array = jnp.asarray(end, images.dtype)
    return array if array.ndim == 0 else jnp.broadcast_to(array, images.shape).reshape(pictures.shape)


def _check(
    keys: Array,
    images: Array,
    norm: str,
    num_queries: int,
    restarts: int,
    first_restart: int | Array,
    initial_fraction: float,
) -> None:
    check_keys(keys, images)
    if norm not in ("linf", "l2", "l1"):
        raise SettingError("norm", norm, "one of linf, l2, l1")
    if images.ndim > 4 or (images.ndim == 2 and norm != "linf"):
        wanted = "pictures [B, H, W, C] or [B, H, W]" + (", or vectors [B, D]" if norm == "linf" else "")
        raise SettingError("images", list(images.shape), wanted)
    check_steps("num_queries", num_queries)
    check_steps("restarts", restarts)
    if isinstance(first_restart, int) and first_restart < 0:
        raise SettingError("first_restart", first_restart, "an integer ≥ 0")
    if not 0 < initial_fraction <= 1:
        raise SettingError("initial_fraction", initial_fraction, "a share of the picture in (0, 1]")
