"""What comes in from outside: concrete images, labels, boxes, radii and logits, each checked in one way, wherever it enters.

Shapes and dtypes are known under a trace too and are always checked. *Values* are looked at where they are concrete; a tracer is
never looked at, so that a check costs a compiled program nothing.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.types import Bounds, Norm

ROUNDING = 1e-5  # relative to the width of the box: images that were normalised and brought back


def concrete(value: Any) -> np.ndarray | None:
    """The value on the host, or None if it is traced, abstract, a key, or spread over hosts.

    Example:
      >>> concrete(0.5), jax.jit(lambda x: x if concrete(x) is None else -x)(1.0)
      (array(0.5), Array(1., dtype=float32, weak_type=True))
    """
    if isinstance(value, jax.core.Tracer | jax.ShapeDtypeStruct):
        return None
    key = isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.extended)
    if key or (isinstance(value, jax.Array) and not value.is_fully_addressable):
        return None
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == jax.numpy.bfloat16 else array


def require_bounds(bounds: Bounds, image_shape: tuple[int, ...] | None = None, name: str = "bounds") -> None:
    """Refuses a box that is empty, reversed or not a number, and sides that do not broadcast against one image.

    Single features may have no width: they stay as they are.

    Raises:
      SettingError: with both sides.

    Example:
      >>> require_bounds(Bounds(1.0, 0.0))
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: bounds = (1.0, 0.0): expected a lower side below the upper one, e.g. Bounds(0.0, 1.0)
    """
    lower, upper = concrete(bounds[0]), concrete(bounds[1])
    for side in bounds:
        if image_shape is not None and not _broadcasts(np.shape(side), image_shape):
            raise SettingError(
                name, _Words(f"a side of shape {list(np.shape(side))}"), f"sides that broadcast to {list(image_shape)}"
            )
    if lower is not None and upper is not None and not (np.all(lower <= upper) and np.any(lower < upper)):
        raise SettingError(name, (_plain(lower), _plain(upper)), "a lower side below the upper one, e.g. Bounds(0.0, 1.0)")


def require_images(images: Any, bounds: Bounds, name: str = "images") -> None:
    """Refuses images that are no floats [B, ...], and concrete ones outside the box or not finite.

    Raises:
      SettingError: with their range.

    Example:
      >>> require_images(np.array([[-1.5, 0.5]], np.float32), Bounds())  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: images = values from -1.5 to 0.5: expected values inside the bounds [0, 1]...
    """
    if np.ndim(images) < 2 or not jax.numpy.issubdtype(getattr(images, "dtype", object), jax.numpy.floating):
        dtype = getattr(images, "dtype", type(images).__name__)
        whole = ", e.g. images / 255.0" if "int" in str(dtype) else ""
        raise SettingError(name, _Words(f"{dtype}{list(np.shape(images))}"), _IMAGES + whole)
    require_bounds(bounds, np.shape(images)[1:])
    values, lower, upper = concrete(images), concrete(bounds[0]), concrete(bounds[1])
    if values is None or lower is None or upper is None or not values.size:
        return
    if not np.all(np.isfinite(values)):
        raise SettingError(name, _Words(f"{int(np.sum(~np.isfinite(values)))} values that are not finite"), "finite values")
    slack = ROUNDING * np.where(np.isfinite(upper - lower), upper - lower, 0) + _rounding(images.dtype, lower, upper)
    if np.any(values < lower - slack) or np.any(values > upper + slack):
        box = f"[{_plain(np.min(lower)):g}, {_plain(np.max(upper)):g}]"
        raise SettingError(
            name,
            _Words(f"values from {values.min():.4g} to {values.max():.4g}"),
            f"values inside the bounds {box}; normalisation belongs into the model (mean=, std=), and other bounds are given as "
            "bounds=",
        )


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether images of this shape look like [N, C, H, W]: the second axis is 1 or 3 and the last is not.

    Example:
      >>> channels_first((8, 3, 32, 32)), channels_first((8, 32, 32, 3)), channels_first((8, 1, 28, 1)), channels_first((8, 3))
      (True, False, False, False)
    """
    return len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)


def require_labels(labels: Any, num_examples: int, num_classes: int | None = None, name: str = "labels") -> None:
    """Refuses labels that are no integers [B], and concrete ones outside [0, K).

    Raises:
      SettingError: with the first label that is out of range.

    Example:
      >>> require_labels(np.array([0, 10]), 2, 10)
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: labels = 10 at position 1: expected classes 0 to 9
    """
    dtype = getattr(labels, "dtype", None)
    if np.shape(labels) != (num_examples,) or dtype is None or not jax.numpy.issubdtype(dtype, jax.numpy.integer):
        raise SettingError(name, _Words(f"{dtype}{list(np.shape(labels))}"), f"integers of shape [{num_examples}]")
    values = concrete(labels)
    if values is None or not values.size:
        return
    outside = np.flatnonzero((values < 0) | (values >= (np.inf if num_classes is None else num_classes)))
    if outside.size:
        classes = "classes from 0 on" if num_classes is None else f"classes 0 to {num_classes - 1}"
        raise SettingError(name, _Words(f"{int(values[outside[0]])} at position {outside[0]}"), classes)


def require_logits(logits: Any, num_examples: int, name: str = "logits_fn") -> None:
    """Refuses what a function of images returned unless it is an array of logits [B, K] with K of at least 2.

    Raises:
      SettingError: with what it returned.

    Example:
      >>> require_logits((np.zeros((4, 10)), {}), 4)
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: logits_fn = a tuple: expected logits [4, K] of at least two classes, in one array
      >>> require_logits(np.zeros((4, 1)), 4)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: logits_fn = float64[4, 1]: expected logits [4, K]...; one logit s is [0, s]: bap...
    """
    wanted = f"logits [{num_examples}, K] of at least two classes"
    if not isinstance(logits, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
        kind = type(logits).__name__
        article = "an" if kind[:1] in "AEIOUaeiou" else "a"
        raise SettingError(name, _Words("None" if logits is None else f"{article} {kind}"), f"{wanted}, in one array")
    text = _Words(f"{logits.dtype}{list(logits.shape)}")
    if logits.shape in ((num_examples, 1), (num_examples,)):
        raise SettingError(name, text, f"{wanted}; one logit s is [0, s]: bap.models.two_class")
    if logits.ndim != 2 or logits.shape[0] != num_examples or logits.shape[1] < 2:
        raise SettingError(name, text, wanted)
    if not jax.numpy.issubdtype(logits.dtype, jax.numpy.floating):
        raise SettingError(name, text, f"{wanted}, in floats")


def largest_radius(norm: Norm, bounds: Bounds, image_shape: tuple[int, ...] | None) -> float:
    """The size of the box in a norm: no perturbation inside it is longer. L∞: its width; L2, L1, L0, RMS: its diameter.

    Infinite where a side is infinite or traced, and where the shape of an image is needed and not known.

    Example:
      >>> largest_radius("linf", Bounds(), None), largest_radius("l2", Bounds(), (32, 32, 3))
      (1.0, 55.42562584220407)
      >>> largest_radius("l0", Bounds(), (4,))
      4.0
    """
    lower, upper = concrete(bounds[0]), concrete(bounds[1])
    if lower is None or upper is None:
        return math.inf
    widths = np.asarray(upper, np.float64) - np.asarray(lower, np.float64)
    if norm == "linf" or (image_shape is None and norm == "rms" and widths.ndim == 0):
        return float(np.max(widths))
    if image_shape is None or not np.all(np.isfinite(widths)):
        return math.inf
    widths = np.broadcast_to(widths, image_shape)
    sizes = {"l2": np.linalg.norm(widths), "l1": widths.sum(), "l0": widths.size, "rms": np.sqrt(np.mean(widths**2))}
    return float(sizes[norm])


def require_radius(
    value: Any, norm: Norm, bounds: Bounds, image_shape: tuple[int, ...] | None = None, name: str = "epsilon"
) -> None:
    """Refuses a concrete radius (a number or an array) that is negative, not a number, or wider than the box; infinity passes.

    Exactly the size of the box stays allowed. ``None`` and traced values pass.

    Raises:
      SettingError: with the fraction that was probably meant.

    Example:
      >>> require_radius(8, "linf", Bounds())
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: epsilon = 8: expected at most 1, the linf size of the box [0, 1]; 8/255?
    """
    values = None if value is None else concrete(value)
    if values is None or not values.size:
        return
    if not np.issubdtype(values.dtype, np.number):
        raise SettingError(name, value, "a number, or one per example")
    if np.any(np.isnan(values)) or np.any(values < 0):
        raise SettingError(name, value if values.ndim == 0 else float(np.nanmin(values)), "a radius of at least 0")
    most = largest_radius(norm, bounds, image_shape)
    finite = values[np.isfinite(values)]
    if finite.size and finite.max() > most * (1 + ROUNDING):
        largest = float(finite.max())
        lower, upper = concrete(bounds[0]), concrete(bounds[1])
        box = f"[{_plain(np.min(lower)):g}, {_plain(np.max(upper)):g}]"  # type: ignore[arg-type]
        meant = f"; {largest:g}/255?" if largest / 255 <= most else ""
        raise SettingError(name, _Words(f"{largest:g}"), f"at most {most:.6g}, the {norm} size of the box {box}{meant}")


_IMAGES = "floats of shape [B, ...]"


class _Words(str):
    """A value that is told in words, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _rounding(dtype: Any, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """How far beyond a side its rounding to the images' dtype may lie: a wall that half precision does not hold."""
    sides = np.maximum(*(np.where(np.isfinite(side), np.abs(side), 0) for side in (lower, upper)))
    return float(jax.numpy.finfo(dtype).eps) * sides


def _plain(side: Any) -> Any:
    return side.item() if np.ndim(side) == 0 else np.asarray(side).tolist()


def _broadcasts(side: tuple[int, ...], image: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(side, image) == tuple(image)
    except ValueError:
        return False
