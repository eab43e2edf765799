"""The protocol of the adversarial pruning survey: clean accuracy, AutoAttack at two radii, HO-FMN, the curve of its distances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bap_jax.errors import SettingError
from bap_jax.evaluation.autoattack import autoattack
from bap_jax.evaluation.compiled import Predict
from bap_jax.evaluation.evaluate_batches import evaluate_batches
from bap_jax.evaluation.result import EvaluationResult, Progress
from bap_jax.evaluation.security_curve import SecurityCurve, security_curve
from bap_jax.evaluation.tables import Rows
from bap_jax.evaluation.tuned_fmn import FmnTrial, TunedFmn, tune_fmn
from bap_jax.types import Array, Batch, Bounds, Params

EPSILON = 0.031  # AutoAttack's, as the survey's code has it
NOMINAL = 8 / 255  # as its text has it; HO-FMN's distances are compared with it
RADII = tuple(float(value) for value in np.linspace(0, 0.15, 1000))  # of the security curve
HO_FMN = "ho-fmn-linf"
_AUTOATTACK = 3500  # passes of an image, half of them standing to the end, in the time of gradient steps


class Split(NamedTuple):
    """Which images HO-FMN is tuned on, and which it is measured on: positions in the test data."""

    tuning: tuple[np.ndarray, ...]  # one array for each trial
    measured: np.ndarray
    theirs: bool  # whether it is the survey's

    @property
    def all(self) -> np.ndarray:
        return np.concatenate([*self.tuning, self.measured])


def survey_split(
    num_images: int, *, num_trials: int = 32, trial_size: int = 64, num_measured: int = 128, start: int = 2048
) -> Split:
    """The survey's split: 32 trials on 64 images each, then the 128 images from position 2048 on.

    Args:
      num_images: of the test data.
      num_trials: trials.
      trial_size: images of each trial.
      num_measured: images that the tuned attack is measured on.
      start: where these begin. Of data that ends before, the second half is measured and the first one is tuned on, each trial
        going on where the one before stopped, and again from the first image on after the last.

    Raises:
      SettingError: fewer than two images, or numbers below 1.

    Example:
      >>> split = survey_split(10_000)
      >>> len(split.tuning), int(split.tuning[-1][-1]), int(split.measured[0]), int(split.measured[-1]), split.theirs
      (32, 2047, 2048, 2175, True)
      >>> survey_split(359, num_measured=64).measured[0]
      np.int64(179)
    """
    for name, value in (("num_trials", num_trials), ("trial_size", trial_size), ("num_measured", num_measured)):
        if value < 1:
            raise SettingError(name, value, "a whole number of at least 1")
    if num_images < 2:
        raise SettingError("num_images", num_images, "at least two images, to tune on one and to measure on another")
    if num_images < start + num_measured:
        start = num_images // 2
    size = min(trial_size, start)
    tuning = tuple(np.arange(trial * size, (trial + 1) * size) % start for trial in range(num_trials))
    measured = np.arange(start, min(start + num_measured, num_images))
    theirs = (num_trials, size, start) == (32, 64, 2048)
    return Split(tuning, measured, theirs and len(measured) >= 128)


class SurveyResult(NamedTuple):
    """What the protocol found."""

    attacked: EvaluationResult  # clean accuracy, and AutoAttack's at EPSILON and NOMINAL
    measured: EvaluationResult  # HO-FMN's distances
    tuned: TunedFmn
    curve: SecurityCurve  # of HO-FMN's distances at RADII

    @property
    def distances(self) -> np.ndarray:
        """[N] HO-FMN's, of the images that it was measured on: 0 = wrong already, infinite where nothing was found."""
        return self.measured.distance[HO_FMN]


def survey_protocol(
    predict: Predict,
    params: Params,
    attacked: Iterable[Batch],
    tuning: Iterable[Batch],
    measured: Iterable[Batch],
    key: Array | int,
    *,
    bounds: Bounds = Bounds(),
    num_steps: int = 200,
    num_trial_steps: int = 100,
    counts: tuple[int, int, int] = (10_000, 2048, 128),
    seed: int = 0,
    controls: bool = True,
    put: Callable[[Batch], Batch] | None = None,
    recall: Callable[[str], Rows | None] | None = None,
    record: Callable[[str, Rows], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
    autoattack_settings: Mapping[str, Any] = MappingProxyType({}),
) -> SurveyResult:
    """Runs the protocol: AutoAttack (standard, L∞) at 0.031, what stands there again at 8/255; FMN tuned, and its distances.

    Args:
      predict: (params, images) to logits.
      params: of the network.
      attacked: the images of clean accuracy and AutoAttack.
      tuning: a batch for each trial, see :func:`survey_split`.
      measured: the images whose distances are measured.
      key: of random starts.
      bounds: the box.
      num_steps: of the tuned attack.
      num_trial_steps: of each trial.
      counts: images attacked, tuned on and measured, for progress alone.
      seed: of the search.
      controls, put, recall, record: see :func:`bap_jax.evaluate`.
      progress: told of the whole protocol; how its parts compare is an estimate.
      autoattack_settings: see :func:`bap_jax.evaluation.autoattack`; none for the published one.

    Returns:
      SurveyResult.

    Raises:
      SettingError: as :func:`bap_jax.evaluate` and :func:`bap_jax.evaluation.tune_fmn`.

    References:
      Piras et al. 2024, "Adversarial Pruning: A Survey and Benchmark of Pruning Methods for Adversarial Robustness"
      (pralab/AdversarialPruningBenchmark).
    """
    tell = progress or (lambda reached: None)
    passes = (_AUTOATTACK * counts[0], num_trial_steps * counts[1], 2 * num_steps * counts[2])
    shares = [cost / sum(passes) for cost in passes]
    begun = (0.0, shares[0], shares[0] + shares[1])

    def part(number: int) -> Callable[[Progress], None]:
        return lambda reached: tell(reached._replace(fraction=begun[number] + shares[number] * reached.fraction))

    def named(prefix: str) -> dict[str, Any]:
        return {
            "recall": None if recall is None else lambda name: recall(f"{prefix}/{name}"),
            "record": None if record is None else lambda name, rows: record(f"{prefix}/{name}", rows),
        }

    common: dict[str, Any] = {"controls": controls, "put": put}
    cascade = autoattack(bounds=bounds, name="autoattack-linf", **autoattack_settings)
    whole = evaluate_batches(
        predict, params, attacked, cascade, (EPSILON, NOMINAL), key, nested=True, progress=part(0), **common, **named("attacked")
    )
    seen = 0

    def trial(number: int, found: FmnTrial, num_images: int) -> None:
        nonlocal seen
        seen += num_images
        fraction = begun[1] + shares[1] * min(1.0, seen / counts[1])
        label = f"tuning HO-FMN, trial {number}, median distance {found.median:.4g}"
        tell(Progress(label, math.inf, seen, counts[1], math.nan, fraction))

    given = {name: value for name, value in named("tuning").items() if value is not None}
    sent: dict[str, Any] = {} if put is None else {"put": put}
    tuned = tune_fmn(
        predict, params, tuning, num_steps=num_trial_steps, bounds=bounds, seed=seed, progress=trial,
        **sent, **given,
    )  # fmt: skip
    threat = tuned.threat(num_steps, bounds, HO_FMN)
    found = evaluate_batches(predict, params, measured, threat, NOMINAL, key, progress=part(2), **common, **named("measured"))
    return SurveyResult(whole, found, tuned, security_curve(found.distance[HO_FMN], RADII))
