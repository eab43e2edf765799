"""Accuracy on validation data during training: what the best checkpoint is chosen by."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks import pgd
from bap_jax.data import evaluation_batches
from bap_jax.mathematics import successful
from bap_jax.mathematics.objectives import cross_entropy
from bap_jax.parallel import own_rows, shard_batch
from bap_jax.runs.settings import Settings
from bap_jax.training import TrainState
from bap_jax.types import Apply, Array, Batch, Bounds, Norm, Pruner

if TYPE_CHECKING:
    from bap_jax.runs.run import Run

KEY = 2004_05913  # validation's attacks are the same in every run


class Validation(NamedTuple):
    """Accuracy at every radius of validation (PGD with a random start), fractions of 1."""

    epsilons: tuple[float, ...]
    accuracies: tuple[float, ...]
    loss: float | None = None  # cross-entropy on the attacked images, the mean over radii; for a pruner that observes it

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    def as_dict(self) -> dict[str, float]:
        named = zip(self.epsilons, self.accuracies, strict=True)
        told = {f"validation_accuracy_{epsilon:g}": value for epsilon, value in named} | {"validation_mean": self.mean}
        return told if self.loss is None else told | {"validation_loss": self.loss}


def validate(run: Run, pruner: Pruner, state: TrainState) -> Validation:
    """Validates the network that the state holds, on the first ``validation_limit`` examples; for a pruner that observes it also
    its loss.
    """
    options, validation = run.options, run.splits.validation
    params, _ = pruner.finish(state.trainable, state.prune)
    apply: Any = run.model.apply  # a protocol does not say that functions hash
    observed = pruner.observe is not None
    measure = _measure(apply, options.validation_norm, options.validation_steps, validation.bounds, observed)
    seen = min(options.validation_limit, len(validation))
    size, mesh = min(seen, 250), run.mesh
    if mesh is not None:
        size = -(-size // mesh.size) * mesh.size
    correct, losses = np.zeros(len(options.validation_epsilons)), 0.0
    for part in evaluation_batches(validation, size, limit=options.validation_limit, rows=own_rows(mesh, size)):
        batch = part if mesh is None else shard_batch(mesh, part)
        found = [jax.device_get(measure(params, state.model_state, batch, epsilon)) for epsilon in options.validation_epsilons]
        correct += [float(of_radius["correct"]) for of_radius in found]
        losses += sum(float(of_radius.get("loss", 0.0)) for of_radius in found)
    accuracies = tuple(float(total / seen) for total in correct)
    return Validation(options.validation_epsilons, accuracies, losses / (seen * len(accuracies)) if observed else None)


def clean_loss(run: Run, pruner: Pruner, state: TrainState) -> float:
    """The mean cross-entropy on the first ``validation_limit`` clean images: what a phase with patience waits for."""
    validation, limit = run.splits.validation, run.options.validation_limit
    params, _ = pruner.finish(state.trainable, state.prune)
    apply: Any = run.model.apply  # a protocol does not say that functions hash
    total = seen = 0.0
    for batch in evaluation_batches(validation, min(limit, len(validation), 500), limit=limit):
        total += float(_clean_loss(apply)(params, state.model_state, batch))
        seen += float(batch.weight.sum())
    return total / seen


@functools.lru_cache(maxsize=64)
def _clean_loss(apply: Apply) -> Callable[..., Array]:
    @jax.jit
    def measure(params, model_state, batch: Batch):
        logits = apply(params, model_state, batch.images, train=False)[0].logits
        return jnp.sum(cross_entropy(logits, batch.labels) * batch.weight)

    return measure


@functools.lru_cache(maxsize=64)
def _measure(apply: Apply, norm: Norm, num_steps: int, bounds: Bounds, observed: bool) -> Callable[..., dict[str, Array]]:
    @jax.jit
    def measure(params, model_state, batch: Batch, epsilon):
        def logits_fn(images):
            return apply(params, model_state, images, train=False)[0].logits

        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(KEY), batch.index)
        result = pgd(logits_fn, keys, batch.images, batch.labels, epsilon=epsilon, num_steps=num_steps, norm=norm, bounds=bounds)
        correct = successful(logits_fn(batch.images), batch.labels, targeted=True) & ~result.found  # what is NaN is not correct
        found = {"correct": jnp.sum(correct * batch.weight)}
        if observed:
            found["loss"] = jnp.sum(cross_entropy(logits_fn(result.images), batch.labels) * batch.weight)
        return found

    return measure


def summary(settings: Settings, validation: Validation) -> list[tuple[str, str]]:
    """Rows for the screen: one per radius."""
    rows = [("clean", f"{100 * validation.accuracies[0]:.1f} %")] if validation.epsilons[0] == 0 else []
    for epsilon, accuracy in zip(validation.epsilons, validation.accuracies, strict=True):
        if epsilon > 0:
            rows.append((f"PGD-{settings.validation_steps} {settings.norm} {epsilon:g}", f"{100 * accuracy:.1f} %"))
    return rows
