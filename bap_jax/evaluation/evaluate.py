"""Robust accuracy of a model under a set of threats, with the checks that make the numbers believable."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.evaluation import checks
from bap_jax.evaluation.accuracy import clean_accuracy, robust_accuracy
from bap_jax.evaluation.checks import Check
from bap_jax.mathematics.norms import check_norm, per_example_norm
from bap_jax.mathematics.objectives import cross_entropy, margin
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.mathematics.rows import num_features
from bap_jax.types import Array, Batch, Bounds, Norm, Params, Threat

Predict = Callable[[Params, Array], Array]  # (params, images [B, ...]) -> logits [B, K]


class Progress(NamedTuple):
    """How far an evaluation is: told after every attack on every batch."""

    batch: int  # from 0
    num_examples: int  # seen so far, this batch included
    threat: str
    epsilon: float  # inf for a minimal-norm attack, which has none
    accuracy: float  # robust accuracy of this batch


class EvaluationResult(NamedTuple):
    """What an evaluation found. N examples in the order of the batches, padding left out; E budgets of a threat, rising."""

    num_examples: int
    clean_accuracy: float
    epsilons: Mapping[str, tuple[float, ...]]  # threat -> E budgets, in the threat's norm
    robust_accuracy: Mapping[str, np.ndarray]  # threat -> [E]
    worst_case: Mapping[Norm, np.ndarray]  # norm -> [E], correct under every threat of that norm
    index: np.ndarray  # type: ignore[assignment]  # [N] position in the data set
    label: np.ndarray  # [N]
    prediction: np.ndarray  # [N] on the clean image
    success: Mapping[str, np.ndarray]  # threat -> [E, N] bool: misclassified, be it without an attack
    distance: Mapping[str, np.ndarray]  # minimal threat -> [N]: 0 = wrong already, inf = nothing found
    checks: tuple[Check, ...]


def evaluate(
    predict: Predict,
    params: Params,
    batches: Iterable[Batch],
    threats: Sequence[Threat],
    epsilons: Sequence[float] | Mapping[Norm, Sequence[float]],
    key: Array,
    *,
    put: Callable[[Batch], Batch] | None = None,
    fetch: Callable[[Any], Any] = jax.device_get,
    progress: Callable[[Progress], None] | None = None,
) -> EvaluationResult:
    """Attack every example with every threat at every ε, judge the attacked images anew, and check the result.

    An example counts as robust at ε if it is correct on the clean image and under every threat; the worst case is taken per
    example. Every attacked image is predicted again by a program of its own, and measured: one outside its ball (beyond
    rounding) or its box is no success, and a check fails. At ε = 0 no attack is run, since the ball holds the image alone. A
    minimal-norm attack is run once, and has succeeded at every ε that is at least its distance.

    Each function is compiled once per ``predict`` and threat: ε and ``params`` are traced, so that other budgets and other
    checkpoints of the same model cost no compilation, provided that the same ``predict`` object is passed again. Keys are
    ``fold_in(key, index)`` per row, so that batch size, padding and sharding change no random number.

    Args:
      predict: (params, images [B, ...]) to logits [B, K], deterministic, in evaluation mode.
      params: whatever ``predict`` wants; on a mesh replicated or sharded by the caller.
      batches: every example once; padding has weight 0.
      threats: attacks, of different names.
      epsilons: budgets ≥ 0 for all threats, or for each norm its own.
      key: one typed key.
      put: brings a batch to the devices, e.g. ``lambda batch: jax.device_put(batch, batch_sharding)``; nothing by default.
      fetch: brings results to the host as numpy; with several hosts, a gather over processes.
      progress: called after every attack on every batch.

    Returns:
      EvaluationResult. A failed check does not stop the evaluation: look at ``checks``.

    Raises:
      SettingError: budgets, names, labels or images that cannot be, or no example at all.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bap_jax.evaluation.threats import fgsm_threat
      >>> from bap_jax.types import Batch
      >>> images = jnp.array([[0.9, 0.1], [0.6, 0.5]])
      >>> batch = Batch(images, jnp.array([0, 0]), jnp.arange(2), jnp.ones(2))
      >>> result = evaluate(lambda scale, x: scale * x, 1.0, [batch], [fgsm_threat()], [0.0, 0.1], jax.random.key(0))
      >>> result.clean_accuracy, result.robust_accuracy["fgsm-linf"].tolist()
      (1.0, [1.0, 0.5])
    """
    budgets = _budgets(threats, epsilons)
    run = _Run(predict, params, threats, budgets, key, fetch, progress)
    for number, batch in enumerate(batches):
        run.add(number, batch if put is None else put(batch))
    return run.result()


class _Run:
    """One evaluation under way: adds batches to lists of per-example arrays."""

    def __init__(self, predict, params, threats, budgets, key, fetch, progress):
        self.predict, self.params, self.threats, self.budgets = predict, params, threats, budgets
        self.key, self.fetch, self.progress = key, fetch, progress
        self.clean: dict[str, list[np.ndarray]] = defaultdict(list)
        self.attacked: dict[tuple[str, float], dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
        self.num_steps: dict[str, int] = {}
        self.num_examples = 0
        self.difference = self.scale = 0.0

    def add(self, number: int, batch: Batch) -> None:
        boxes = tuple(threat.bounds for threat in self.threats)
        look = self.fetch(_look(self.predict, self.params, batch, boxes))
        real = look["weight"] > 0
        _check_batch(look, real, self.threats)
        _append(self.clean, look, real)
        self.num_examples += int(real.sum())
        if number == 0:
            self._look_again(batch, look, real)
        for threat in self.threats:
            for epsilon in (math.inf,) if threat.minimal else self.budgets[threat.name]:
                self._attack(number, batch, threat, epsilon, look, real)

    def _look_again(self, batch: Batch, look: dict[str, np.ndarray], real: np.ndarray) -> None:
        """Once more by the same program (noise drawn at run time) and by another (noise drawn while tracing)."""
        same = self.fetch(_look(self.predict, self.params, batch, tuple(threat.bounds for threat in self.threats)))
        other = self.fetch(_judge(self.predict, "linf", self.params, batch, batch.images, Bounds()))
        logits = look["logits"][real]
        gaps = np.nan_to_num([np.abs(again["logits"][real] - logits) for again in (same, other)])
        self.difference = float(np.max(gaps, initial=0.0))
        self.scale = float(np.max(np.abs(np.nan_to_num(logits)), initial=0.0))

    def _attack(self, number: int, batch: Batch, threat: Threat, epsilon: float, look: dict, real: np.ndarray) -> None:
        wrong = look["prediction"] != look["label"]
        if epsilon == 0:
            rows = {"broken": wrong}
        else:
            rows = self._attacked_rows(batch, threat, epsilon, wrong)
        _append(self.attacked[threat.name, epsilon], rows, real)
        if self.progress is not None:
            robust = 1 - float(rows["broken"][real].mean()) if real.any() else math.nan
            self.progress(Progress(number, self.num_examples, threat.name, epsilon, robust))

    def _attacked_rows(self, batch: Batch, threat: Threat, epsilon: float, wrong: np.ndarray) -> dict[str, np.ndarray]:
        radius = np.float32(max(self.budgets[threat.name]) if threat.minimal else epsilon)
        images, found, losses = _attack(self.predict, _hashable(threat.attack), self.params, self.key, batch, radius)
        self.num_steps[threat.name] = losses.shape[0]
        judged = self.fetch(_judge(self.predict, threat.norm, self.params, batch, images, threat.bounds))
        found, moved = self.fetch((found, _movement(losses)))
        fooled = judged["prediction"] != judged["label"]
        allowed = epsilon + _tolerance(threat, epsilon, num_features(batch.images))
        inside = (judged["norm"] <= allowed) & judged["boxed"]
        return {
            "broken": wrong | (fooled & inside),
            "distance": np.where(wrong, 0.0, np.where(fooled & inside, judged["norm"], np.inf)),
            "outside_ball": ~(judged["norm"] <= allowed),
            "outside_box": ~judged["boxed"],
            "not_finite": ~judged["finite"],
            "lost": found & ~fooled & ~wrong,
            "rise": moved[0],
            "last_rise": moved[1],
        }

    def result(self) -> EvaluationResult:
        if self.num_examples == 0:
            raise SettingError("batches", 0, "at least one example of weight > 0")
        clean = {name: np.concatenate(parts) for name, parts in self.clean.items()}
        rows = {which: {n: np.concatenate(p) for n, p in parts.items()} for which, parts in self.attacked.items()}
        correct = clean["prediction"] == clean["label"]
        success, distance = {}, {}
        for threat in self.threats:
            name = threat.name
            if threat.minimal:
                distance[name] = rows[name, math.inf]["distance"]
                success[name] = np.stack([self._within(distance[name], threat, eps) for eps in self.budgets[name]])
            else:
                success[name] = np.stack([rows[name, eps]["broken"] for eps in self.budgets[name]])
        accuracy = {name: np.array([robust_accuracy(correct, row[None]) for row in rows]) for name, rows in success.items()}
        return EvaluationResult(
            self.num_examples,
            clean_accuracy(clean["prediction"], clean["label"]),
            self.budgets,
            accuracy,
            self._worst(correct, success),
            clean["index"],
            clean["label"],
            clean["prediction"],
            success,
            distance,
            (*self._model_checks(clean), *self._attack_checks(rows, accuracy), *self._strength_checks(accuracy)),
        )

    @staticmethod
    def _within(distance: np.ndarray, threat: Threat, epsilon: float) -> np.ndarray:
        return (distance == 0) | (distance <= epsilon * (1 + 1e-6)) & (epsilon > 0)

    def _worst(self, correct: np.ndarray, success: Mapping[str, np.ndarray]) -> dict[Norm, np.ndarray]:
        groups: dict[Norm, list[np.ndarray]] = defaultdict(list)
        for threat in self.threats:
            groups[threat.norm].append(success[threat.name])
        return {
            norm: np.array([robust_accuracy(correct, at_epsilon) for at_epsilon in np.stack(group, axis=1)])
            for norm, group in groups.items()
        }

    def _model_checks(self, clean: Mapping[str, np.ndarray]) -> list[Check]:
        count, gradient = self.num_examples, clean["gradient"]
        zero = (gradient == 0) | (clean["margin_gradient"] == 0)
        return [
            checks.check_once(count - len(np.unique(clean["index"])), count),
            checks.check_logits(int(clean["probabilities"].sum()), count),
            checks.check_finite("finite outputs", int((~clean["finite"]).sum()), count, "the model gives NaN or infinity"),
            checks.check_determinism(self.difference, self.scale),
            checks.check_finite("finite input gradients", int((~np.isfinite(gradient)).sum()), count, "the gradient overflows"),
            checks.check_gradients(int(zero.sum()), int((~zero & (gradient < 1e-7 * clean["margin_gradient"])).sum()), count),
        ]

    def _attack_checks(self, rows: Mapping[tuple[str, float], Mapping[str, np.ndarray]], accuracy) -> list[Check]:
        found = []
        for threat in self.threats:
            name = threat.name
            parts = [part for (which, epsilon), part in rows.items() if which == name and epsilon > 0]
            if not parts:
                continue
            merged = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
            count = len(merged["broken"])
            if not threat.minimal:
                found.append(checks.check_points(name, int(merged["outside_ball"].sum()), count, "ball"))
            found.append(checks.check_points(name, int(merged["outside_box"].sum()), count, "box"))
            found.append(checks.check_finite(f"{name}: finite points", int(merged["not_finite"].sum()), count, "NaN gradients"))
            found.append(checks.check_returned(name, int(merged["lost"].sum()), count))
            found.append(checks.check_monotone(name, self.budgets[name], accuracy[name], self.num_examples))
            if not threat.minimal and self.num_steps[name] > 1:
                left = ~merged["broken"]
                rise, last = (float(merged[column][left].mean()) if left.any() else 0.0 for column in ("rise", "last_rise"))
                found.append(checks.check_converged(name, rise, last, int(left.sum())))
        return found

    def _strength_checks(self, accuracy: Mapping[str, np.ndarray]) -> list[Check]:
        found = []
        for norm in dict.fromkeys(threat.norm for threat in self.threats):
            group = [threat for threat in self.threats if threat.norm == norm and not threat.minimal]
            for position, epsilon in enumerate(self.budgets[group[0].name] if group else ()):
                values = {t.name: float(accuracy[t.name][position]) for t in group if t.name in self.num_steps and epsilon > 0}
                single = {name: value for name, value in values.items() if self.num_steps[name] == 1}
                iterative = {name: value for name, value in values.items() if self.num_steps[name] > 1}
                check = checks.check_iterative(single, iterative, max(0.005, 1.5 / self.num_examples))
                if check is not None:
                    found.append(check._replace(name=f"{check.name} at ε = {epsilon:g}"))
        return found


@partial(jax.jit, static_argnums=0)
def _look(predict: Predict, params: Params, batch: Batch, boxes: tuple[Bounds, ...]) -> dict[str, Array]:
    """The clean images: predictions, and what the checks on the model want to know."""

    def loss(images: Array) -> tuple[Array, Array]:
        logits = predict(params, images)
        return jnp.sum(cross_entropy(logits, batch.labels)), logits

    gradient, logits = jax.grad(loss, has_aux=True)(batch.images)
    margin_gradient = jax.grad(lambda images: jnp.sum(margin(predict(params, images), batch.labels)))(batch.images)
    flat = batch.images.reshape(batch.images.shape[0], -1)
    return {
        "index": batch.index,
        "label": batch.labels,
        "weight": batch.weight,
        "logits": logits,
        "prediction": jnp.argmax(logits, axis=1),
        "finite": jnp.all(jnp.isfinite(logits), axis=1),
        "probabilities": jnp.all(logits >= 0, axis=1) & (jnp.abs(jnp.sum(logits, axis=1) - 1) < 1e-3),
        "gradient": per_example_norm(gradient, "linf"),
        "margin_gradient": per_example_norm(margin_gradient, "linf"),
        "finite_image": jnp.all(jnp.isfinite(flat), axis=1),
        "boxed": jnp.stack([_boxed(batch.images, bounds) for bounds in boxes], axis=1) if boxes else flat[:, :0] == 0,
    }


@partial(jax.jit, static_argnums=(0, 1))
def _attack(predict: Predict, attack: Callable, params: Params, key: Array, batch: Batch, epsilon: Array):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch.index)
    return attack(lambda images: predict(params, images), keys, batch.images, batch.labels, epsilon)


@partial(jax.jit, static_argnums=(0, 1))
def _judge(predict: Predict, norm: Norm, params: Params, batch: Batch, images: Array, bounds: Bounds) -> dict[str, Array]:
    """Attacked images, measured and predicted by a program that knows nothing of the attack."""
    logits = predict(params, images)
    return {
        "logits": logits,
        "label": batch.labels,
        "prediction": jnp.argmax(logits, axis=1),
        "norm": per_example_norm(images - batch.images, norm),
        "boxed": _boxed(images, bounds),
        "finite": jnp.all(jnp.isfinite(images.reshape(images.shape[0], -1)), axis=1),
    }


@jax.jit
def _movement(losses: Array) -> tuple[Array, Array]:
    """How much the objective rose over all steps, and over the last quarter of them (at most ten)."""
    steps = losses.shape[0]
    window = max(1, min(10, steps // 4))
    return losses[-1] - losses[0], losses[-1] - losses[max(0, steps - 1 - window)]


def _boxed(images: Array, bounds: Bounds) -> Array:
    distance = jnp.abs(images - clip_to_bounds(images, bounds))
    return jnp.max(distance.reshape(images.shape[0], -1), axis=1) <= 1e-6


def _tolerance(threat: Threat, epsilon: float, size: int) -> float:
    """What rounding may add to a norm: two ULPs of the largest pixel on every feature, and the sum's own error."""
    if threat.norm == "l0":
        return 0.0
    sides = [float(np.max(np.abs(side))) for side in threat.bounds]
    pixel = 2 * float(np.finfo(np.float32).eps) * max([side for side in sides if math.isfinite(side)], default=1.0)
    grown = {"linf": 1.0, "rms": 1.0, "l2": math.sqrt(size), "l1": float(size)}[threat.norm]
    return 0.0 if math.isinf(epsilon) else grown * pixel + 1e-5 * epsilon


def _append(columns: dict[str, list[np.ndarray]], rows: Mapping[str, np.ndarray], real: np.ndarray) -> None:
    for name, values in rows.items():
        if name not in ("logits", "weight", "boxed", "finite_image"):
            columns[name].append(np.asarray(values)[real])


def _check_batch(look: Mapping[str, np.ndarray], real: np.ndarray, threats: Sequence[Threat]) -> None:
    labels, num_classes = look["label"][real], look["logits"].shape[1]
    if ((labels < 0) | (labels >= num_classes)).any():
        raise SettingError("labels", f"{labels.min()} … {labels.max()}", f"integers in 0 … {num_classes - 1}")
    if not look["finite_image"][real].all():
        raise SettingError("images", "NaN or infinity", "finite numbers")
    for column, threat in enumerate(threats):
        if not look["boxed"][real][:, column].all():
            raise SettingError("images", "outside the bounds", f"images inside {threat.bounds} of threat {threat.name}")


def _budgets(
    threats: Sequence[Threat], epsilons: Sequence[float] | Mapping[Norm, Sequence[float]]
) -> dict[str, tuple[float, ...]]:
    names = [threat.name for threat in threats]
    if len(set(names)) < len(names):
        raise SettingError("threats", names, "a different name for each")
    budgets = {}
    for threat in threats:
        check_norm(threat.norm)
        chosen = epsilons.get(threat.norm) if isinstance(epsilons, Mapping) else epsilons
        if chosen is None or len(chosen) == 0:
            raise SettingError("epsilons", epsilons, f"at least one budget for the norm {threat.norm}")
        values = sorted({float(value) for value in chosen})
        if any(not (math.isfinite(value) and value >= 0) for value in values):
            raise SettingError("epsilons", list(chosen), "finite numbers ≥ 0")
        budgets[threat.name] = tuple(values)
    return budgets


def _hashable(attack: Callable) -> Callable:
    """Settings that hold arrays cannot be a cache's key; such an attack is compiled anew in every evaluation."""
    try:
        hash(attack)
    except TypeError:
        return lambda *arguments: attack(*arguments)
    return attack
