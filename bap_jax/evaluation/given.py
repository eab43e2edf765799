"""What a caller hands to an evaluation, brought into one form, or refused by name before anything is compiled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.evaluation.cascade import Cascade
from bap_jax.inputs import require_images, require_labels
from bap_jax.types import Array, Batch, Bounds, Threat

ANYTHING = Bounds(-math.inf, math.inf)


def attacks_of(threats: Any) -> list[Threat | Cascade]:
    """The attacks: a sequence of them, or one alone.

    Raises:
      SettingError: something else, the name of an attack for instance.

    Example:
      >>> from bap_jax.evaluation.threats import named_threat
      >>> [threat.name for threat in attacks_of(named_threat("fgsm"))]
      ['fgsm-linf']
    """
    given: list[Any]
    given = [threats] if isinstance(threats, Threat | Cascade | str) or not isinstance(threats, Iterable) else list(threats)
    for threat in given:
        if isinstance(threat, str):
            raise SettingError("threats", threat, f"attacks with their settings, such as named_threat({threat!r})")
        if not isinstance(threat, Threat | Cascade):
            raise SettingError("threats", type(threat).__name__, "attacks with their settings, such as named_threat('pgd')")
    return given


def sources_of(sources: Any) -> list[Any]:
    """The other networks: a sequence of them, or one alone.

    Raises:
      SettingError: something else.
    """
    given = [sources] if hasattr(sources, "predict") or not isinstance(sources, Iterable) else list(sources)
    for source in given:
        if not hasattr(source, "predict"):
            raise SettingError("sources", type(source).__name__, "networks as Surrogate(name, predict, params)")
    return given


def radii_of(given: Any, name: str = "epsilons") -> tuple[float, ...]:
    """Budgets in rising order, without repeats: of a number, or of a sequence or array of them.

    Raises:
      SettingError: a text, none at all, or one that is negative or not finite.

    Example:
      >>> radii_of(0.1), radii_of([0.2, 0.1, 0.2])
      ((0.1,), (0.1, 0.2))
    """
    alone = isinstance(given, str) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0
    values = [given] if alone else list(given)
    if not values:
        raise SettingError(name, given, "at least one number")
    for value in values:
        number = None if isinstance(value, str) or np.ndim(value) else _as_float(value)
        if number is None:
            raise SettingError(name, given, "numbers, such as [0, 8 / 255]")
        if not (math.isfinite(number) and number >= 0):
            raise SettingError(name, values, "finite numbers ≥ 0")
    return tuple(sorted({float(value) for value in values}))


def _as_float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def key_of(key: Any) -> Array:
    """One typed key: as given, or made of a whole number or of the two numbers of an old-style key.

    Raises:
      SettingError: something else, or several keys.

    Example:
      >>> bool(key_of(7) == jax.random.key(7)) and bool(key_of(jax.random.PRNGKey(7)) == jax.random.key(7))
      True
    """
    if isinstance(key, int | np.integer):
        return jax.random.key(int(key))
    if isinstance(key, jax.Array | np.ndarray):
        if jax.numpy.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return key  # type: ignore[return-value]
        if key.dtype == np.uint32 and key.shape == jax.random.key_data(jax.random.key(0)).shape:
            return jax.random.wrap_key_data(key)  # type: ignore[arg-type]
    shape = f" of shape {list(key.shape)}" if hasattr(key, "shape") else ""
    raise SettingError("key", f"{type(key).__name__}{shape}", "one key such as jax.random.key(0), or a whole number")


def batches_of(batches: Any) -> Iterable[Any]:
    """The batches, or one alone.

    Raises:
      SettingError: nothing that can be gone through.
    """
    if isinstance(batches, Batch):
        return [batches]
    if isinstance(batches, str) or not isinstance(batches, Iterable):
        raise SettingError("batches", type(batches).__name__, "an iterable of Batch(images, labels, index, weight)")
    return batches


def on_host(batch: Any, boxes: Sequence[Bounds], image_shape: tuple[int, ...] | None = None) -> tuple[Any, np.ndarray]:
    """A batch as numpy arrays, and which of its rows are real.

    Args:
      batch: with images [B, ...], labels [B], index [B], weight [B].
      boxes: the real images have to lie in each.
      image_shape: what one image has to have; whatever it has by default.

    Raises:
      SettingError: no batch; columns of other shapes or types; images outside a box; weights that are negative or not finite.

    Example:
      >>> on_host(Batch(np.zeros((2, 3), np.float32), np.array([0, 1]), np.arange(2), np.ones(1)), [Bounds()])
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: weight = 'float64[1]': expected one number per image, shape [2]
    """
    if not all(hasattr(batch, name) for name in Batch._fields):
        raise SettingError("batches", type(batch).__name__, "batches: Batch(images, labels, index, weight)")
    images, labels, index, weight = (np.asarray(getattr(batch, name)) for name in Batch._fields)
    if images.ndim < 2 or not jax.numpy.issubdtype(images.dtype, jax.numpy.floating):
        require_images(images, ANYTHING)  # of all rows, padding too; the values below only of real ones
    count = len(images)
    if labels.shape != (count,):
        require_labels(labels, count)
    for name, column, kinds, expected in (
        ("index", index, "iu", f"integers of shape [{count}]: positions in the data set"),
        ("weight", weight, "biuf", f"one number per image, shape [{count}]"),
    ):
        if column.shape != (count,) or column.dtype.kind not in kinds:
            raise SettingError(name, f"{column.dtype}{list(column.shape)}", expected)
    if not np.all(np.isfinite(weight) & (weight >= 0)):
        raise SettingError("weight", float(np.min(weight)), "finite numbers ≥ 0, 0 for padding")
    real = weight > 0
    require_labels(labels[real], int(real.sum()))
    if image_shape is not None and images.shape[1:] != image_shape:
        raise SettingError("images", list(images.shape[1:]), f"images of one shape; those before had {list(image_shape)}")
    for bounds in boxes or [ANYTHING]:
        require_images(images[real], bounds)
    columns: tuple[Any, ...] = (images, labels, index, weight)
    return Batch(*columns), real
