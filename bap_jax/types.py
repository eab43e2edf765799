"""The vocabulary: the types every other layer speaks in. Nothing here computes.

Shapes are written in brackets: ``B`` is the batch, ``K`` the number of classes and ``...`` the shape of one image (``H, W, C``
for pictures). Every per-example array has its batch dimension first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
PyTree = Any
Params = PyTree  # a pytree of arrays: weights
ModelState = PyTree  # whatever a forward pass carries besides weights, e.g. BatchNorm statistics; () or {} if nothing
Norm = Literal["linf", "l2", "l1", "l0", "rms"]
LogitsFn = Callable[[Array], Array]  # images [B, ...] -> logits [B, K]
Status = Literal["passed", "warned", "failed"]
Gather = Callable[[Array], Array]  # [B_local, ...] -> [B_global, ...]; the identity under jit and a mesh


def comparable(value: Any) -> Any:
    """An array as something that compares and hashes by its values, also within tuples; anything else as it is, tracers too.

    >>> import numpy as np
    >>> comparable(np.float32(0.5)), comparable(np.zeros(2)) == comparable(np.zeros(2, np.float32)), comparable("linf")
    (0.5, True, 'linf')
    """
    if isinstance(value, tuple):
        return tuple(map(comparable, value))
    if isinstance(value, jax.core.Tracer) or not isinstance(value, jax.Array | np.ndarray | np.generic):
        return value
    if isinstance(value, jax.Array) and (jnp.issubdtype(value.dtype, jax.dtypes.extended) or not value.is_fully_addressable):
        return value
    array = np.asarray(value)
    if array.ndim == 0:
        return array.item()
    wide = array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
    return (wide.dtype.str, wide.shape, wide.tobytes())


class Bounds(NamedTuple):
    """The box that every image lies in, in input units.

    Boxes compare and hash by their values, be they numbers or arrays: an attack that holds one is compiled once.

    >>> import numpy as np
    >>> Bounds(np.zeros(3), np.ones(3)) == Bounds(np.zeros(3), np.ones(3)), Bounds() == Bounds(np.zeros(3), 1.0)
    (True, False)
    """

    lower: float | Array = 0.0
    upper: float | Array = 1.0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple) or len(other) != 2:
            return False
        return self is other or comparable(self) == comparable(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(comparable(self))


class Batch(NamedTuple):
    """One batch of labelled examples.

    ``weight`` is 1 for a real example and 0 for padding. ``index`` is the example's position in its data set; padding carries
    ``num_examples`` (one past the end, so that a scatter with ``mode="drop"`` ignores it), never -1, which JAX would wrap.
    """

    images: Array  # [B, ...] float32, inside the bounds
    labels: Array  # [B] int32
    index: Array  # type: ignore[assignment]  # [B] int32; hides tuple.index, which a batch does not need
    weight: Array  # [B] float32


class Outputs(NamedTuple):
    """What a forward pass returns."""

    logits: Array  # [B, K]
    taps: Mapping[str, Array]  # named intermediate features, {} if the model offers none


class Apply(Protocol):
    """The one calling convention for models: Linen modules, NNX modules and plain functions adapt to it."""

    def __call__(
        self, params: Params, model_state: ModelState, images: Array, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, ModelState]: ...


class Model(NamedTuple):
    """A network as two pure functions.

    ``init(key, images) -> (params, model_state)`` takes an example batch of images (only its shape and dtype matter);
    ``apply`` is described by :class:`Apply`.
    """

    init: Callable[[Array, Array], tuple[Params, ModelState]]
    apply: Apply


class AttackResult(NamedTuple):
    """What every attack returns."""

    images: Array  # [B, ...] the attacked images, inside the bounds
    found: Array  # [B] bool: an adversarial point was met
    loss: Array  # [num_steps, B] the objective at every step, so that an evaluator can see whether it still moved


class Threat(NamedTuple):
    """An attack with its settings, as evaluation takes it.

    ``attack(logits_fn, keys, images, labels, epsilon) -> AttackResult``. A minimal-norm attack (``minimal=True``) ignores
    ``epsilon``: it returns the nearest adversarial point that it found, in ``norm``. What the checks make use of:
    ``black_box`` attacks take no gradients, so a gradient attack has to be at least as strong; ``stronger`` is the same attack
    with more steps or restarts, which should change nothing. ``cost`` is the run time relative to other threats (about the number
    of forward and backward passes), for progress only.
    """

    name: str
    norm: Norm
    bounds: Bounds
    minimal: bool
    attack: Callable[[LogitsFn, Array, Array, Array, Array], AttackResult]
    black_box: bool = False
    stronger: Callable[[LogitsFn, Array, Array, Array, Array], AttackResult] | None = None
    cost: float = 1.0


class Check(NamedTuple):
    """One check on an evaluation: what was looked at, how it came out, the value found, and what to do about it."""

    name: str
    status: Status
    value: str
    advice: str


class Adversarial(NamedTuple):
    """The adversarial half of a training batch."""

    images: Array  # [B, ...]
    epsilon: Array  # [B] the budget each example got, in the budget's norm
    targets: Array  # [B, K] what the network should answer, one-hot unless the budget softens it
    weight: Array  # [B]


class Budget(NamedTuple):
    """Which adversarial examples training sees: a pair of pure functions over an explicit state (the optax idea).

    ``init(num_examples) -> state``;
    ``perturb(keys, logits_fn, batch, state, *, step, gather) -> (Adversarial, state)`` with one key per row in ``keys``.
    """

    init: Callable[[int], PyTree]
    perturb: Callable[..., tuple[Adversarial, PyTree]]


class Pruner(NamedTuple):
    """A pruning method: pure functions over an explicit state whose ``masks`` have the structure of ``params``.

    ``init(key, params) -> (trainable, state)``; one that can begin with a network that is pruned already takes
    ``init(key, params, masks=None)``, masks being an upper bound: no later mask keeps a weight that they prune;
    ``effective(trainable, state) -> params`` what the network computes with;
    ``penalty(step, trainable, state) -> scalar`` added to the loss;
    ``due(step, state) -> bool`` whether the masks change now;
    ``update(key, step, trainable, dense_grads, state) -> (trainable, state)`` the change, run under ``lax.cond``;
    ``project(trainable, state) -> trainable`` run after every optimiser step, e.g. set pruned weights to zero again;
    ``finish(trainable, state) -> (params, masks)`` the pruned network.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    effective: Callable[[PyTree, PyTree], Params]
    penalty: Callable[[Array, PyTree, PyTree], Array]
    due: Callable[[Array, PyTree], Array]
    update: Callable[[Array, Array, PyTree, Params, PyTree], tuple[PyTree, PyTree]]
    project: Callable[[PyTree, PyTree], PyTree]
    finish: Callable[[PyTree, PyTree], tuple[Params, PyTree]]


class Loss(NamedTuple):
    """What training minimises.

    ``init(params, model_state) -> state`` (a frozen teacher lives there, or ``()``);
    ``value(forward, batch, adversarial, state, *, step, mean, gather) -> (scalar, metrics)``.
    ``forward(*images) -> (Outputs, ...)`` is one training-mode pass over the concatenation.
    ``mean(values [B], weight [B]) -> scalar`` is this device's share of the mean over the whole batch: shares averaged over
    devices give the mean. The returned scalar and metrics are shares in the same sense.
    """

    init: Callable[[Params, ModelState], PyTree]
    value: Callable[..., tuple[Array, dict[str, Array]]]
