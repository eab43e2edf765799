"""FMN with its numbers tuned on the network by Bayesian optimisation, as the adversarial pruning survey runs HO-FMN."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks import fmn
from bap_jax.attacks.ho_fmn import FmnConfiguration
from bap_jax.errors import SettingError
from bap_jax.evaluation import compiled
from bap_jax.evaluation.compiled import Predict
from bap_jax.evaluation.given import batches_of, on_host
from bap_jax.evaluation.proposals import propose
from bap_jax.evaluation.tables import Rows
from bap_jax.evaluation.threats import named_threat
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.objectives import successful
from bap_jax.types import Array, Batch, Bounds, Params, Threat

NUM_FIRST = 8  # trials that are spread evenly before any is proposed from what was found
STEP_SIZES, MOMENTA, WEIGHT_DECAYS = (8 / 255, 10.0), (0.0, 0.9), (0.01, 1.0)  # of the search, the first on a log scale


class FmnTrial(NamedTuple):
    """One configuration, and how far it came."""

    step_size: float
    momentum: float
    weight_decay: float
    median: float  # of the smallest L∞ distances of the images that were right; infinite where most were not fooled


class TunedFmn(NamedTuple):
    """The best of all trials."""

    configuration: FmnConfiguration
    trials: tuple[FmnTrial, ...]

    def threat(self, num_steps: int = 200, bounds: Bounds = Bounds(), name: str = "ho-fmn-linf") -> Threat:
        """The attack, as :func:`bap_jax.evaluate` takes it."""
        return named_threat("fmn", bounds=bounds, name=name, num_steps=num_steps, **self.configuration.settings(num_steps))


def tune_fmn(
    predict: Predict,
    params: Params,
    batches: Iterable[Batch],
    *,
    num_steps: int = 100,
    bounds: Bounds = Bounds(),
    seed: int = 0,
    put: Callable[[Batch], Batch] = lambda batch: batch,
    recall: Callable[[str], Rows | None] = lambda name: None,
    record: Callable[[str, Rows], None] = lambda name, rows: None,
    progress: Callable[[int, FmnTrial, int], None] = lambda number, trial, num_images: None,
) -> TunedFmn:
    """Tries L∞ FMN on the DLR loss by SGD on signs of gradients, with a cosine, one configuration on each batch.

    Step size (from 8/255 to 10, on a log scale), momentum (0 to 0.9) and weight decay (0.01 to 1) are searched: eight trials are
    spread evenly, those after them proposed by :func:`bap_jax.evaluation.proposals.propose`. What differs from the authors: their
    search also varies the dampening of SGD, which is a factor of all steps but the first; images that are wrong without an
    attack are left out of the median here, and are infinitely far there; their tool proposes points by a process of its own.

    Args:
      predict: (params, images) to logits [B, K ≥ 3].
      params: of the network.
      batches: one for each trial, all of one size.
      num_steps: of FMN.
      bounds: the box.
      seed: of the search.
      put: brings a batch to the devices.
      recall: what ``record`` was told under a name, if anything was; a trial that is known is not made again.
      record: see ``recall``.
      progress: called after every trial, with its number from 1, what came of it, and on how many images.

    Returns:
      TunedFmn.

    Raises:
      SettingError: no batch, or a network that no configuration fools on half of any batch.

    Example:
      >>> import jax.numpy as jnp
      >>> predict = lambda scale, x: scale * x
      >>> image = np.array([[0.75, 0.5, 0.25]], np.float32)
      >>> batch = Batch(image, np.array([0]), np.array([0]), np.ones(1))
      >>> tuned = tune_fmn(predict, 1.0, [batch] * 9, num_steps=20)
      >>> len(tuned.trials), bool(min(trial.median for trial in tuned.trials) < 0.2)
      (9, True)

    References:
      Mura et al. 2024, "HO-FMN: Hyperparameter Optimization for Fast Minimum-Norm Attacks"; Piras et al. 2024, "Adversarial
      Pruning: A Survey and Benchmark of Pruning Methods for Adversarial Robustness" (32 trials of 64 images and 100 steps).
    """
    trials: list[FmnTrial] = []
    points: list[np.ndarray] = []
    for number, batch in enumerate(batches_of(batches)):
        batch, real = on_host(batch, [bounds])
        points.append(propose(points, [trial.median for trial in trials], 3, num_first=NUM_FIRST, seed=seed))
        numbers = _numbers(points[-1])
        name = f"tune/{number}"
        found = recall(name)
        if found is None:
            distances = _try(predict, num_steps, params, put(batch), jnp.asarray(numbers, jnp.float32), bounds)
            found = {"distance": np.asarray(distances)[real]}
            record(name, found)
        trials.append(FmnTrial(*numbers, _median(found["distance"])))
        progress(number + 1, trials[-1], int(real.sum()))
    if not trials:
        raise SettingError("batches", 0, "a batch for each trial")
    best = min(trials, key=lambda trial: trial.median)
    if math.isinf(best.median):
        raise SettingError("batches", len(trials), "batches of which some trial fools half of the images that are right")
    return TunedFmn(_configuration(*best[:3]), tuple(trials))


def _configuration(step_size: float, momentum: float, weight_decay: float) -> FmnConfiguration:
    return FmnConfiguration("dlr", "sgd", "cosine", step_size=step_size, sign=True, momentum=momentum, weight_decay=weight_decay)


def _numbers(point: np.ndarray) -> tuple[float, float, float]:
    """Step size, momentum and weight decay at a point of the unit cube."""
    low, high = (math.log(side) for side in STEP_SIZES)
    rate = min(max(math.exp(low + float(point[0]) * (high - low)), STEP_SIZES[0]), STEP_SIZES[1])
    momentum, decay = (
        side[0] + float(x) * (side[1] - side[0]) for side, x in zip((MOMENTA, WEIGHT_DECAYS), point[1:], strict=True)
    )
    return rate, momentum, decay


def _median(distances: np.ndarray) -> float:
    """The lower one in the middle, of the images that were right."""
    right = np.sort(distances[distances > 0])
    return float(right[(len(right) - 1) // 2]) if len(right) else math.inf


@functools.partial(jax.jit, static_argnums=(0, 1))
def _try(predict: Predict, num_steps: int, params: Params, batch: Batch, numbers: Array, bounds: Bounds) -> Array:
    """[B] distances: 0 of images that are wrong already, infinite where nothing was found. One program for all configurations."""
    logits_fn = compiled._logits_fn(predict, params)
    settings = _configuration(numbers[0], numbers[1], numbers[2]).settings(num_steps)  # type: ignore[arg-type]  # traced
    result = fmn(logits_fn, None, batch.images, batch.labels, norm="linf", bounds=bounds, num_steps=num_steps, **settings)
    distance = jnp.where(result.found, per_example_norm(result.images - batch.images, "linf"), jnp.inf)
    return jnp.where(successful(logits_fn(batch.images), batch.labels), 0, distance)
