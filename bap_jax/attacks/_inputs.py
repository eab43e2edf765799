"""The door of every attack: what comes in is checked, the arithmetic is float32 whatever the images are, what goes out fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.inputs import concrete, require_images, require_labels, require_logits, require_radius
from bap_jax.mathematics.projections import check_radius
from bap_jax.types import NORMS, Array, AttackResult, Bounds, LogitsFn, Norm

_NO_BOX = Bounds(-math.inf, math.inf)
Give = Callable[[Array, Array, Array], AttackResult]  # (images, found, loss) -> what the attack returns


class Admitted(NamedTuple):
    """What an attack works with."""

    logits_fn: LogitsFn  # points [B, ...] float32 -> logits [B, K] float32, K ≥ 2
    images: Array  # [B, ...] float32 or wider
    labels: Array  # [B]
    give: Give


def admit(
    logits_fn: Callable[..., Array],
    images: Array,
    labels: Array,
    bounds: Bounds,
    *,
    norm: Norm | str = "linf",
    epsilon: float | Array | None = None,
) -> Admitted:
    """Checks what an attack is given, and brings it into the form that the attack works in.

    Shapes and dtypes are always checked, values where they are concrete: images inside the box, labels that are no less than 0, a
    radius no wider than the box. What ``logits_fn`` returns is checked whenever it is called; that labels are among its classes,
    by the objectives.

    **Half precision.** float16 and bfloat16 images are attacked in float32. The network is shown every point in the images'
    dtype, each feature rounded *towards the clean image*, where it cannot leave a ball around the image nor the box; gradients
    pass the rounding as if it were none. What is given back is rounded likewise, so that it is the very point that was judged.
    Logits in half precision are cast to float32. Of float32 images and logits nothing is changed.

    Args:
      logits_fn: as the attack was given it; :class:`AnyRadius` to go beyond the box.
      images: [B, ...].
      labels: [B].
      bounds: the box.
      norm: of the radius.
      epsilon: the radius, or None.

    Returns:
      Admitted.

    Raises:
      SettingError: anything that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> images = jnp.full((1, 2), 0.3, jnp.bfloat16)
      >>> work = admit(lambda x: x, images, jnp.array([0]), Bounds(), epsilon=0.1)
      >>> work.images.dtype, work.logits_fn(work.images).dtype
      (dtype('float32'), dtype('float32'))
      >>> result = work.give(work.images + 0.1, work.labels == 0, jnp.zeros((1, 1)))
      >>> result.images.dtype, bool((result.images.astype(jnp.float32) - work.images <= 0.1).all())
      (dtype(bfloat16), True)
    """
    if isinstance(logits_fn, _Network):  # an attack that another one runs: the door was passed already
        return Admitted(logits_fn, images, labels, _cut_off)
    images, labels = (jnp.asarray(value) if isinstance(value, np.ndarray) else value for value in (images, labels))
    require_images(images, bounds)
    require_labels(labels, images.shape[0])
    if jnp.finfo(images.dtype).bits < 16:
        raise SettingError("images", str(images.dtype), "float16, bfloat16 or a wider type")
    check_radius("epsilon", epsilon)
    if norm in NORMS:  # others are refused by the attack, with the norms that it has
        box = _NO_BOX if isinstance(logits_fn, AnyRadius) else bounds
        require_radius(epsilon, norm, box, images.shape[1:])  # type: ignore[arg-type]
    given = images

    def give(points: Array, found: Array, loss: Array) -> AttackResult:
        chex.assert_equal_shape([points, given])
        return _cut_off(points if points.dtype == given.dtype else round_towards(points, given), found, loss)

    return Admitted(_Network(logits_fn, given), given.astype(_wide(given)), labels, give)


class AnyRadius:
    """A network whose attack may go beyond the box: its radius is a budget's or a protocol's, nobody's who mistook the unit.

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.attacks import fgsm
      >>> fgsm(AnyRadius(lambda x: jnp.log(x)), None, jnp.array([[0.75, 0.5]]), jnp.array([0]), epsilon=100.0).images
      Array([[0., 1.]], dtype=float32)
    """

    def __init__(self, logits_fn: Callable[..., Array]):
        self._logits_fn = logits_fn

    def __call__(self, images: Array, *keys: Array) -> Array:
        return self._logits_fn(images, *keys)


@jax.custom_jvp
def round_towards(points: Array, images: Array) -> Array:
    """Points in the dtype of images, each feature rounded towards the image's: never farther from it.

    Hence a point of a ball around the image stays in it, whatever the norm, and one of the box stays in the box.

    Args:
      points: [B, ...] in a wider type.
      images: [B, ...].

    Returns:
      [B, ...] of the images' dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> round_towards(jnp.array([0.3009, 0.2991]), jnp.array([0.25, 0.5], jnp.bfloat16))
      Array([0.300781, 0.300781], dtype=bfloat16)
    """
    near = points.astype(images.dtype)
    back, centre = near.astype(points.dtype), images.astype(points.dtype)
    beyond = jnp.where(points > centre, back > points, back < points)
    return jnp.where(beyond, jax.lax.nextafter(near, images), near)


@round_towards.defjvp
def _as_if_exact(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return round_towards(*primals), tangents[0].astype(primals[1].dtype)


class _Network:
    """The network as an attack sees it: points in, checked float32 logits out."""

    def __init__(self, logits_fn: Callable[..., Array], images: Array):
        self._logits_fn, self._images = logits_fn, images

    def __call__(self, points: Array, *keys: Array) -> Array:
        if points.dtype != self._images.dtype:  # of the first rows, where an attack tries something on them alone
            points = round_towards(points, self._images[: points.shape[0]])
        logits = self._logits_fn(points, *keys)
        require_logits(logits, points.shape[0])
        return jnp.asarray(logits, _wide(logits))


def _wide(values: Array) -> Any:
    return jnp.promote_types(values.dtype, jnp.float32)


def _cut_off(images: Array, found: Array, loss: Array) -> AttackResult:
    """No gradient flows through the result."""
    chex.assert_shape(found, images.shape[:1])
    chex.assert_shape(loss, (None, images.shape[0]))
    return jax.tree.map(jax.lax.stop_gradient, AttackResult(images, found, loss))


def check_points(name: str, points: Array, images: Array) -> None:
    """Raise SettingError unless points have the shape and dtype of the images."""
    if points.shape != images.shape or points.dtype != images.dtype:
        wanted = f"points like the images, {images.dtype}{list(images.shape)}"
        raise SettingError(name, f"{points.dtype}{list(points.shape)}", wanted)


def check_float32(images: Array) -> None:
    """Raise SettingError for images in half precision: what searches outside of an attack's door would search in it."""
    if jnp.finfo(images.dtype).bits < 32:
        raise SettingError("images", str(images.dtype), "float32; a network computes in half precision by its own dtype")


def check_keys(keys: Array | None, images: Array) -> None:
    """Raise SettingError unless there is one typed key per row of images."""
    typed = keys is not None and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if keys is None or not typed or keys.shape != images.shape[:1]:
        found = None if keys is None else f"{keys.dtype}{list(keys.shape)}"
        raise SettingError("keys", found, f"{images.shape[0]} typed keys, one per row (jax.random.split(jax.random.key(0), n))")


def check_steps(name: str, value: object) -> None:
    """Raise SettingError unless the value is an integer ≥ 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SettingError(name, value, "an integer ≥ 1")


def check_count(name: str, value: object, least: int) -> None:
    """Raise SettingError for anything but a large enough integer; traced and array values pass."""
    if not isinstance(value, jax.Array) and (not isinstance(value, int) or value < least):
        raise SettingError(name, value, f"an integer ≥ {least}")


def check_top_k(top_k: object, targeted: bool) -> None:
    """Raise SettingError unless it is an integer ≥ 1, and 1 where a class is wanted."""
    check_steps("top_k", top_k)
    if targeted and top_k != 1:
        raise SettingError("top_k", top_k, "1 with targeted=True: the wanted class is answered, or it is not")


def check_positive(name: str, value: Any) -> None:
    """Raise SettingError for a number that is not positive and finite, concrete arrays of them included; traced ones pass."""
    numbers = None if value is None else concrete(value)
    if numbers is not None and not np.all(np.isfinite(numbers) & (numbers > 0)):
        raise SettingError(name, value, "a finite number > 0")
