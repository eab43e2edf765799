"""Robust accuracy in one line: a function of images, arrays, the names of attacks, and a radius."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from bap_jax.errors import SettingError
from bap_jax.evaluation.cascade import Cascade
from bap_jax.evaluation.evaluate_batches import evaluate_batches
from bap_jax.evaluation.examples import Examples
from bap_jax.evaluation.jobs import Radii
from bap_jax.evaluation.named import threats_of
from bap_jax.evaluation.result import EvaluationResult, Progress
from bap_jax.inputs import require_labels
from bap_jax.types import Array, Batch, Bounds, Threat

_OLD = ("predict", "params", "batches", "threats", "epsilons", "key")


def evaluate(
    network: Callable[[Array], Array] | Any,
    images: Any = None,
    labels: Any = None,
    *old: Any,
    attacks: str | Threat | Cascade | Sequence[str | Threat | Cascade] = "autoattack",
    epsilon: Radii | None = None,
    norm: str | Sequence[str] = "linf",
    bounds: Bounds | tuple[float, float] | None = None,
    limit: int | None = None,
    batch_size: int = 256,
    seed: int | Array = 0,
    progress: bool | Callable[[Progress], None] = False,
    **more: Any,
) -> EvaluationResult:
    """How well a network holds: attacks it and checks the attack itself.

    Args:
      network: a function from images [B, ...] to logits [B, K], in evaluation mode, that JAX can trace and differentiate; or a
        network as :func:`bap_jax.load` and :func:`bap_jax.runs.fit` give it. A function is compiled anew at every call, since
        nobody can see whether the weights inside it have changed; networks of one model share what is compiled.
      images: [N, ...] floats inside ``bounds``, or uint8, which is read as ``value / 255``; or a data set of
        :mod:`bap_jax.data`, which brings its labels and bounds.
      labels: [N] whole numbers.
      attacks: a name, several in one text parted by commas, or a sequence of names, threats (:func:`bap_jax.named_threat`) and
        cascades (:func:`bap_jax.autoattack`). Names: those of :data:`bap_jax.evaluation.ATTACKS`, ``autoattack``,
        ``autoattack-plus``, ``autoattack-rand``, and cascades of one's own, ``cascade:apgd-ce+square``.
      epsilon: a radius in units of the images, several, or for each norm its own: ``{"linf": 8 / 255, "l2": [0.5, 1]}``. A
        minimal-norm attack is run once and counted at each.
      norm: of the named attacks: ``linf``, ``l2``, ``l1``, ``l0`` (features), ``rms``, or several.
      bounds: the box of the images; [0, 1], or the data set's.
      limit: only the first so many images.
      batch_size: images attacked at once.
      seed: a whole number, or one key.
      progress: True for a line on standard error that says how far it is, or a function of
        :class:`bap_jax.evaluation.Progress`.
      **more: settings of the named attacks (``num_steps=20``, ``restarts=5``, …), and what
        :func:`bap_jax.evaluation.evaluate_batches` takes: ``sources``, ``controls``, ``keep_examples``, ``nested``, ``recall``,
        ``record``, ``put``, ``fetch``.
      *old: the arguments of :func:`bap_jax.evaluation.evaluate_batches`, which this was before; taken for one release more.

    Returns:
      EvaluationResult: ``print(result)`` is a table, ``result.to_rows()`` records, ``result.plot()`` a picture. A failed check
      does not stop the evaluation: look at ``result.checks``.

    Raises:
      SettingError: what cannot be, named, before anything is attacked.

    Example:
      >>> import numpy as np
      >>> images, labels = np.array([[0.9, 0.1], [0.6, 0.5]]), np.array([0, 0])
      >>> result = evaluate(lambda images: images, images, labels, attacks="pgd", epsilon=[0.02, 0.1], num_steps=5)
      >>> result.clean_accuracy, result.robust_accuracy["pgd-5-linf"].tolist()
      (1.0, [1.0, 0.5])
    """
    if old or {"threats", "epsilons", "batches", "params"} & more.keys():
        return _as_before([network, images, labels, *old], more | {"progress": progress or None})
    taken = ("sources", "controls", "keep_examples", "nested", "recall", "record", "put", "fetch")
    passed = {name: more.pop(name) for name in taken if name in more}
    if epsilon is None:
        raise SettingError("epsilon", None, "a radius such as 8 / 255, or several")
    predict, weights = _predictor(network)
    images, labels, box = _examples(images, labels, bounds, limit)
    norms = [part.strip() for part in norm.split(",")] if isinstance(norm, str) else list(norm)
    threats = threats_of(attacks, norms, box, more)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise SettingError("batch_size", batch_size, "a whole number of at least 1")
    rows = np.arange(len(images), dtype=np.int32)
    examples = Examples(images, labels, rows, min(batch_size, len(images)))
    told = _line(sys.stderr) if progress is True else progress or None
    batches = _batches(examples)
    found = evaluate_batches(predict, weights, batches, threats, epsilon, seed, progress=told, **passed)
    if progress is True:
        print(file=sys.stderr)
    return found


def _batches(examples: Examples) -> Iterator[Batch]:
    return (batch for _, batch in examples.batches(np.arange(len(examples.labels))))


def _predictor(network: Any) -> tuple[Callable[[Any, Array], Array], Any]:
    if hasattr(network, "predict") and hasattr(network, "weights"):
        return network.predict, network.weights
    if not callable(network):
        raise SettingError(
            "network", type(network).__name__, "a function from images to logits, or a network as bap.load gives it"
        )
    return lambda weights, images: network(images), ()


def _examples(images: Any, labels: Any, bounds: Any, limit: int | None) -> tuple[np.ndarray, np.ndarray, Bounds]:
    if limit is not None and limit < 1:
        raise SettingError("limit", limit, "a whole number of at least 1, or None for all images")
    if labels is None and hasattr(images, "read"):
        bounds = images.bounds if bounds is None else bounds
        images, labels = images.read(np.arange(len(images) if limit is None else min(limit, len(images))))
    elif images is None or labels is None:
        missing = "images" if images is None else "labels"
        raise SettingError(missing, None, "images [N, ...] and labels [N], or a data set of bap.data alone")
    images, labels = np.asarray(images)[:limit], np.asarray(labels)[:limit]
    if images.ndim < 2 or not len(images):
        raise SettingError("images", list(images.shape), "at least one image: an array of shape [N, ...]")
    require_labels(labels, len(images))
    images = images.astype(np.float32) / np.float32(255 if images.dtype == np.uint8 else 1)
    return images, labels.astype(np.int32), Bounds() if bounds is None else Bounds(*bounds)


def _line(stream: TextIO, width: int = 79) -> Callable[[Progress], None]:
    """Says on one line, written over again and again, how far an evaluation is."""

    def tell(reached: Progress) -> None:
        at = "" if math.isinf(reached.epsilon) else f" at {reached.epsilon:.4g}"
        text = f"{reached.fraction:4.0%}  {reached.threat}{at}: {reached.accuracy:.1%} robust"
        stream.write("\r" + text[:width].ljust(width))
        stream.flush()

    return tell


def _as_before(given: list[Any], more: dict[str, Any]) -> EvaluationResult:
    warnings.warn(
        "evaluate(predict, params, batches, threats, epsilons, key) is evaluate_batches now; the old call goes with "
        "the next release",
        FutureWarning,
        stacklevel=3,
    )
    return evaluate_batches(**(dict(zip(_OLD, given, strict=False)) | more))
