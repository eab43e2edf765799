"""Everything training carries from step to step, as one pytree."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bap_jax.errors import CheckpointError, SettingError
from bap_jax.mathematics.masks import apply_masks, fitted_masks, leaf_paths
from bap_jax.training._signatures import initial, takes
from bap_jax.types import Array, Bounds, Budget, Loss, Model, ModelState, Params, Pruner, PyTree, RunInfo


class TrainState(NamedTuple):
    """One pytree, one checkpoint."""

    step: Array  # int32 scalar, steps taken so far
    trainable: PyTree  # what the optimiser moves; the weights for magnitude pruning
    model_state: ModelState  # BatchNorm statistics, or {}
    opt_state: PyTree
    prune: PyTree  # masks and whatever else the pruner keeps
    budget: PyTree  # running cutoff, per-example table, or ()
    loss: PyTree  # a frozen teacher, or ()
    key: Array  # typed PRNG key; never changes, every step folds its number in
    average: PyTree = ()  # of the effective weights, a bap_jax.training.Average, or ()


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    pruner: Pruner,
    budget: Budget,
    loss: Loss,
    *,
    key: Array,
    images: Array,
    info: RunInfo | None = None,
    num_examples: int | None = None,
    params: Params | None = None,
    model_state: ModelState | None = None,
    masks: PyTree | None = None,
) -> TrainState:
    """The state before the first step. Pure, so that it can be jitted (one compile instead of one per layer).

    By default of new weights; with ``params``, ``model_state`` or ``masks`` of what is given: a network that was trained before.

    Args:
      model: see :class:`bap_jax.types.Model`.
      optimizer: an optax transformation.
      pruner, budget, loss: the slots.
      key: typed PRNG key of the run.
      images: [B, ...] an example batch; only its shape and dtype matter.
      info: what budget and loss are told, see :func:`bap_jax.run_info`.
      num_examples: in place of ``info``, for one more release: the size of the training set.
      params: weights to begin with; copied.
      model_state: BatchNorm statistics to begin with; copied.
      masks: which weights there are, of the structure of the parameters, bool, of the shape of each leaf or a scalar for all of
        it. The others are zero, and stay zero: no later mask keeps them.

    Returns:
      The :class:`TrainState`; no two leaves share a buffer, so that it may be donated.

    Raises:
      CheckpointError: what is given is not the model's: its first leaf that differs is named.
      SettingError: masks that are none of the model's, or for a pruner whose ``init`` takes none; neither
        ``info`` nor ``num_examples``.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from bap_jax import budgets, losses, pruners
      >>> from bap_jax.types import Bounds, Model, RunInfo
      >>> model = Model(lambda key, x: ({"w": jnp.ones((4, 2))}, {}), None)
      >>> info = RunInfo(model.apply, 2, Bounds(), (4,), num_examples=100, steps_per_epoch=10, num_steps=500)
      >>> state = init_state(
      ...     model, optax.sgd(0.1), pruners.dense(), budgets.none(), losses.clean(),
      ...     key=jax.random.key(0), images=jnp.zeros((1, 4)), info=info)
      >>> int(state.step), state.trainable["w"].shape
      (0, (4, 2))
    """
    info = _told(info, model, images, num_examples)
    model_key, prune_key, run_key = jax.random.split(key, 3)
    params, model_state = _network(model, model_key, images, params, model_state)
    if masks is None:
        trainable, prune = pruner.init(prune_key, params)
    else:
        _check_takes_masks(pruner)
        masks = fitted_masks(params, masks)
        params = apply_masks(params, masks)
        trainable, prune = pruner.init(prune_key, params, masks=masks)
    # a frozen teacher or frozen weights may be the very arrays that are trained, or the user's own, which outlive the state
    loss_state = initial("loss", loss.init, params, model_state, info=info, before=(params, model_state))
    prune, loss_state = jax.tree.map(jnp.copy, (prune, loss_state))
    return _without_sharing(
        TrainState(
            step=jnp.int32(0),
            trainable=trainable,
            model_state=model_state,
            opt_state=optimizer.init(trainable),
            prune=prune,
            budget=initial("budget", budget.init, info=info, before=(info.num_examples,)),
            loss=loss_state,
            key=run_key,
        )
    )


def _told(info: RunInfo | None, model: Model, images: Array, num_examples: int | None) -> RunInfo:
    """What the slots are told; of what was asked for before there was an ``info``, with a warning.

    Raises:
      SettingError: neither, or both.
    """
    if info is not None and num_examples is None:
        return info
    if info is not None or num_examples is None:
        raise SettingError("info", info, "what budget and loss are told: bap_jax.run_info(...), and no num_examples")
    warnings.warn("num_examples= goes with the next release; give info=bap_jax.run_info(...)", FutureWarning, stacklevel=3)
    return RunInfo(model.apply, 0, Bounds(), images.shape[1:], num_examples, 0, 0, init=model.init)


def _network(
    model: Model, key: Array, images: Array, params: Params | None, model_state: ModelState | None
) -> tuple[Params, ModelState]:
    """New weights and statistics, or those given, which have to be the model's and stay the user's own."""
    if params is None and model_state is None:
        return model.init(key, images)
    both_given = params is not None and model_state is not None
    wanted = jax.eval_shape(model.init, key, images) if both_given else model.init(key, images)
    pairs = zip(("params", "model_state"), (params, model_state), wanted, strict=True)
    new = [its if given is None else _taken(name, given, its) for name, given, its in pairs]
    return new[0], new[1]


def _taken(name: str, given: PyTree, wanted: PyTree) -> PyTree:
    """A copy of what is given.

    Raises:
      CheckpointError: leaves, shapes or types are others than those wanted.
    """
    stored, expected = _described(given), _described(wanted)
    for path in [*expected, *(path for path in stored if path not in expected)]:
        have, want = stored.get(path, "no such leaf"), expected.get(path, "no such leaf")
        if have != want:
            raise CheckpointError(f"{name} does not fit the model at {path}: given is {have}, expected {want}")
    leaves = dict(zip(stored, jax.tree.leaves(given), strict=True))
    return jax.tree.unflatten(jax.tree.structure(wanted), [jnp.array(leaves[path]) for path in expected])


def _described(tree: PyTree) -> dict[str, str]:
    leaves = zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    return {path: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for path, leaf in leaves}


def _check_takes_masks(pruner: Pruner) -> None:
    """Refuses a pruner that cannot begin with masks.

    Raises:
      SettingError: its ``init`` takes none.
    """
    if not takes(pruner.init, "masks"):
        expected = "one that begins with given masks, init(key, params, masks=None); or no masks"
        raise SettingError("pruner", getattr(pruner.init, "__qualname__", repr(pruner.init)), expected)


def _without_sharing(state: TrainState) -> TrainState:
    """The state with a copy of every leaf whose buffer another leaf has (tied weights, one array of zeros at two places).

    A donated buffer must not appear twice. What shares nothing stays as it is: copies of all would be a compile for each shape.
    """
    seen: set[object] = set()

    def own(leaf):
        buffers = _buffers(leaf)
        shared = not seen.isdisjoint(buffers)
        seen.update(buffers)
        return jnp.copy(leaf) if shared else leaf

    return jax.tree.map(own, state)


def _buffers(leaf: Any) -> list[object]:
    """What tells the memory of a leaf from that of another; under a trace, where there is none yet, the tracer itself."""
    plain = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    if not plain or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or not leaf.size:
        return [id(leaf)]
    try:
        return [(shard.device, shard.data.unsafe_buffer_pointer()) for shard in leaf.addressable_shards]
    except jax.errors.JaxRuntimeError:  # a backend that tells no addresses: the same array at two places is seen all the same
        return [id(leaf)]
