"""The one train step: clean, uniform-budget and blind pruning differ only in the slots they fill."""

from __future__ import annotations

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax

from bap_jax.errors import SettingError
from bap_jax.mathematics.moments import forget
from bap_jax.mathematics.per_example import mean_of_real, quantile_of_real
from bap_jax.threads import warn_of_few_threads
from bap_jax.training._chunks import mean_state, perturbed, refuse_gather, share_of_whole, summed
from bap_jax.training.average import moved
from bap_jax.training.state import TrainState
from bap_jax.types import (
    Adversarial,
    Apply,
    Array,
    Batch,
    Budget,
    Gather,
    Loss,
    ModelState,
    Outputs,
    Params,
    Pruner,
    PyTree,
)

Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
Mean = Callable[[Array, Array], Array]  # (values [B], weight [B]) -> this device's share of their mean over the whole batch

EPSILON_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def make_train_step(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    pruner: Pruner,
    budget: Budget,
    loss: Loss,
    *,
    axis_name: str | None = None,
    microbatches: int = 1,
    attack_chunks: int = 1,
) -> TrainStep:
    """Composes the slots into a pure, un-jitted ``(state, batch) -> (state, metrics)``.

    One step: the budget attacks the effective (pruned) weights in evaluation mode, with gradients to the images only; one
    training-mode pass over clean and adversarial images together gives the loss; its gradient at the effective weights is
    pulled back to what is trained; the optimiser steps; where the pruner says so, the masks change, scored on the weights just
    stepped; then pruned weights are set to zero again. A pruner that says where the gradient is to be taken a second time
    (``ascend``) has the step follow that one instead; one that ``resets`` has moments of the optimiser begin at zero again.

    The caller decides how it runs: ``jax.jit(step, donate_argnums=0)`` on one device, the same with the batch sharded over a
    mesh, or ``jax.pmap(step, axis_name=...)`` with ``axis_name`` set, each device holding its part of the batch. The three
    agree.

    Args:
      apply: the model, see :class:`bap_jax.types.Apply`; under ``axis_name`` its BatchNorm must know that axis too.
      optimizer: an optax transformation.
      pruner, budget, loss: the slots.
      axis_name: the pmap axis, or None.
      microbatches: in how many chunks the batch is taken, one after the other, so that only a chunk's activations need memory:
        the margins of all chunks, then what the budget makes of the whole batch, then the attacks chunk by chunk, then the
        gradients, whose sum moves the weights once. Without BatchNorm and dropout the step is that of the whole batch.
        BatchNorm normalises each chunk by its own statistics, and its running ones move once a step, to the mean of where each
        chunk moves them; dropout draws anew for each chunk.
      attack_chunks: in how many chunks margins and attacks are taken while the gradient is that of the whole batch at once:
        changes nothing but the time and the memory of the attack; fewer than ``microbatches`` are as many.

    Returns:
      The step. Its metrics are float32 scalars: ``loss``, what the loss slot reports, ``epsilon_mean`` and the quantiles
      ``epsilon_q05`` ... ``epsilon_q95`` of the budgets over the batch, and every scalar in the budget's state as
      ``budget_<field>``. When it is traced, it raises AssertionError for a slot that does not keep the shapes of its contract.

    Raises:
      SettingError: ``microbatches`` below 1, or with a loss that is no mean over examples; when it is traced, a batch that does
        not divide into them, or a slot that wants the whole batch at once.

    Example:
      >>> import functools, jax, jax.numpy as jnp, optax
      >>> import bap_jax as bap
      >>> model = bap.models.from_function(
      ...     lambda key, x: {"w": jax.random.normal(key, (x.shape[-1], 3))}, lambda params, x: x @ params["w"])
      >>> pruner = bap.pruners.magnitude(bap.schedules.Ramp(0.0, 0.5, 0, 2, 1))
      >>> attack = functools.partial(bap.pgd, norm="linf", num_steps=3)
      >>> slots = optax.adam(1e-3), pruner, bap.budgets.cutoff_scale(bap.budgets.pgd_search(), attack), bap.losses.mix()
      >>> images = jax.random.uniform(jax.random.key(1), (8, 6))
      >>> batch = bap.Batch(images, jnp.arange(8) % 3, jnp.arange(8), jnp.ones(8))
      >>> info = bap.RunInfo(model.apply, 3, bap.Bounds(), (6,), num_examples=8, steps_per_epoch=1, num_steps=3)
      >>> state = bap.init_state(model, *slots, key=jax.random.key(0), images=images, info=info)
      >>> step = jax.jit(bap.make_train_step(model.apply, *slots))
      >>> for _ in range(3):
      ...     state, metrics = step(state, batch)
      >>> float(bap.measured_sparsity(state.prune.masks))
      0.5
    """
    check_microbatches(microbatches, loss)
    check_microbatches(attack_chunks, name="attack_chunks")

    def average(x: Array) -> Array:
        return x if axis_name is None else jax.lax.pmean(x, axis_name)

    def gather(x: Array) -> Array:
        return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)

    def first_row(batch: Batch) -> Array | int:
        return 0 if axis_name is None else jax.lax.axis_index(axis_name) * batch.labels.shape[0]

    def share_of_mean(values: Array, weight: Array) -> Array:
        # the denominator is the same on every device, so that shares average to the mean of the whole batch
        return jnp.sum(values * weight) / jnp.maximum(average(jnp.sum(weight)), 1e-12)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        _check_threads(batch, axis_name)
        attack_key, forward_key, prune_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        if axis_name is not None:  # dropout draws for this device's part of the batch
            forward_key = jax.random.fold_in(forward_key, jax.lax.axis_index(axis_name))
        rows = first_row(batch) + jnp.arange(batch.labels.shape[0])
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(attack_key, rows)

        effective, pull_back = jax.vjp(lambda trainable: pruner.effective(trainable, state.prune), state.trainable)
        frozen = jax.lax.stop_gradient(effective)

        def logits_fn(images: Array) -> Array:
            return apply(frozen, state.model_state, images, train=False)[0].logits

        adversarial, budget_state = perturbed(budget, keys, logits_fn, batch, state, gather, max(microbatches, attack_chunks))
        chex.assert_equal_shape([adversarial.images, batch.images])
        chex.assert_equal_shape([adversarial.epsilon, adversarial.weight, batch.labels])
        adversarial = jax.lax.stop_gradient(adversarial)

        def objective(params: Params, examples: Batch, attacked: Adversarial, key: Array, mean: Mean, gather: Gather):
            model_state = state.model_state

            def forward(*images: Array) -> tuple[Outputs, ...]:
                nonlocal model_state
                outputs, model_state = apply(params, model_state, interleave(images), train=True, key=key)
                return tuple(jax.tree.map(lambda x, i=i: x[i :: len(images)], outputs) for i in range(len(images)))

            value, metrics = loss.value(forward, examples, attacked, state.loss, step=state.step, mean=mean, gather=gather)
            return value, (metrics, model_state)

        def of_chunk(params: Params, number: Array | int, chunk: tuple[Batch, Adversarial]):
            mean = share_of_whole(chunk, (batch, adversarial), average)
            slot = functools.partial(objective, mean=mean, gather=refuse_gather("a loss"))
            key = jax.random.fold_in(forward_key, number)
            (value, (metrics, model_state)), gradients = jax.value_and_grad(slot, has_aux=True)(params, *chunk, key)
            return (value, metrics, gradients), model_state

        def differentiated(params: Params) -> tuple[Array, Metrics, Params, ModelState]:
            if microbatches > 1:
                (value, metrics, gradients), states = summed(of_chunk, params, (batch, adversarial), microbatches)
                model_state = mean_state(states)
            else:
                slot = functools.partial(objective, mean=share_of_mean, gather=gather)
                found = jax.value_and_grad(slot, has_aux=True)(params, batch, adversarial, forward_key)
                (value, (metrics, model_state)), gradients = found
            return value, metrics, jax.tree.map(average, gradients), model_state

        value, metrics, gradients, model_state = differentiated(effective)
        (trainable_gradients,) = pull_back(gradients)
        if pruner.ascend is not None:  # the same loss on the same examples, where the pruner says; only its gradient is new
            there = pruner.ascend(state.trainable, trainable_gradients, state.prune)
            chex.assert_trees_all_equal_shapes_and_dtypes(there, state.trainable)
            effective, pull_back = jax.vjp(lambda trainable: pruner.effective(trainable, state.prune), there)
            _, _, gradients, _ = differentiated(effective)
            (trainable_gradients,) = pull_back(gradients)
        penalty, penalty_gradients = jax.value_and_grad(pruner.penalty, argnums=1)(state.step, state.trainable, state.prune)
        total_gradients = jax.tree.map(jnp.add, trainable_gradients, penalty_gradients)
        updates, opt_state = optimizer.update(total_gradients, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)

        update = functools.partial(pruner.update, prune_key, state.step, trainable, gradients, state.prune)
        due = pruner.due(state.step, state.prune)
        if pruner.resets:

            def changed() -> tuple[PyTree, PyTree, PyTree]:
                new, prune, anew = update()
                return new, prune, forget(optimizer, opt_state, anew)

            trainable, prune, opt_state = jax.lax.cond(due, changed, lambda: (trainable, state.prune, opt_state))
        else:
            trainable, prune = jax.lax.cond(due, update, lambda: (trainable, state.prune))
        trainable = pruner.project(trainable, prune)
        chex.assert_trees_all_equal_shapes_and_dtypes(trainable, state.trainable)

        metrics = jax.tree.map(average, {"loss": value, **metrics}) | {"penalty": penalty}
        metrics |= budget_metrics(adversarial.epsilon, batch.weight, budget_state, gather)
        kept = (state.loss, state.key, moved(state.average, pruner, trainable, prune))
        new_state = TrainState(state.step + 1, trainable, model_state, opt_state, prune, budget_state, *kept)
        return new_state, metrics

    return train_step


def check_microbatches(count: int, loss: Loss | None = None, name: str = "microbatches", loss_name: str = "this one") -> None:
    """Refuses a number of chunks that makes no sense with a loss.

    Raises:
      SettingError: it is below 1; or there is more than one, and the loss is no mean over examples.

    Example:
      >>> from bap_jax import losses
      >>> check_microbatches(4, losses.mix())
    """
    if count < 1:
        raise SettingError(name, count, "a whole number of at least 1")
    if count > 1 and loss is not None and not loss.per_example_mean:
        raise SettingError(name, count, f"1 with a loss that is no mean over examples, as {loss_name} is none")


def _check_threads(batch: Batch, axis_name: str | None) -> None:
    """Warns, when it is traced, of a step over several CPU devices with few threads: its mesh need not be bap_jax.parallel's."""
    devices = jax.typeof(batch.images).sharding.mesh.size if axis_name is None else jax.lax.axis_size(axis_name)
    if devices > 1 and jax.default_backend() == "cpu":
        warn_of_few_threads(min(devices, jax.local_device_count()))


def interleave(images: tuple[Array, ...]) -> Array:
    """Several batches [B, ...] as one [n * B, ...], row by row.

    Not one after the other: then every device of a mesh would have to send half its rows away.

    Example:
      >>> import jax.numpy as jnp
      >>> interleave((jnp.array([[1], [2]]), jnp.array([[3], [4]]))).ravel().tolist()
      [1, 3, 2, 4]
    """
    if len(images) == 1:
        return images[0]
    return jnp.stack(images, axis=1).reshape((-1, *images[0].shape[1:]))


def budget_metrics(epsilon: Array, weight: Array, budget_state, gather: Callable[[Array], Array]) -> Metrics:
    """Mean and quantiles of the per-example budgets of the global batch, and the scalars of the budget's state."""
    epsilon, weight = gather(epsilon), gather(weight)
    quantiles = quantile_of_real(epsilon, weight, jnp.array(EPSILON_QUANTILES))
    names = [f"epsilon_q{round(100 * level):02d}" for level in EPSILON_QUANTILES]
    metrics = {"epsilon_mean": mean_of_real(epsilon, weight)} | dict(zip(names, quantiles, strict=True))
    fields = budget_state._asdict() if hasattr(budget_state, "_asdict") else {}
    return metrics | {f"budget_{name}": x.astype(jnp.float32) for name, x in fields.items() if getattr(x, "shape", None) == ()}
