"""The vocabulary: the types every other layer speaks in. Nothing here computes.

Shapes are written in brackets: ``B`` is the batch, ``K`` the number of classes and ``...`` the shape of one image (``H, W, C``
for pictures). Every per-example array has its batch dimension first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    import optax

Array = jax.Array
PyTree = Any
Params = PyTree  # a pytree of arrays: weights
ModelState = PyTree  # whatever a forward pass carries besides weights, e.g. BatchNorm statistics; () or {} if nothing
Norm = Literal["linf", "l2", "l1", "l0", "rms"]
LogitsFn = Callable[[Array], Array]  # images [B, ...] -> logits [B, K]
NORMS: tuple[Norm, ...] = get_args(Norm)
Status = Literal["passed", "warned", "failed"]
Gather = Callable[[Array], Array]  # [B_local, ...] -> [B_global, ...]; the identity under jit and a mesh


def comparable(value: Any) -> Any:
    """An array as something that compares and hashes by its values, also within tuples; anything else as it is, tracers too.

    Example:
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

    Example:
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


class About(NamedTuple):
    """What is known of a network besides its two functions; None where it is not."""

    mean: tuple[float, ...] | None = None  # subtracted from each channel of the images, inside the network
    std: tuple[float, ...] | None = None  # each channel is divided by it, inside the network
    batch_norm_epsilon: float | None = None  # added to the variance by BatchNorm; None also where there is no BatchNorm
    num_classes: int | None = None
    channel_groups: PyTree | None = None  # which channels of which leaves belong together: what a structured pruner may remove


class Model(NamedTuple):
    """A network as two pure functions, and what is known of it.

    ``init(key, images) -> (params, model_state)`` takes an example batch of images (only its shape and dtype matter);
    ``apply`` is described by :class:`Apply`.
    """

    init: Callable[[Array, Array], tuple[Params, ModelState]]
    apply: Apply
    about: About | None = None


class Network(NamedTuple):
    """What is deployed: enough to compute logits with."""

    params: Params  # what the network computes with, pruned weights being zero
    masks: PyTree  # bool, the structure of params, True = kept
    model_state: ModelState


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


class RunInfo(NamedTuple):
    """What the slots of a phase are told about it: the factory of a slot, :attr:`Budget.init` and :attr:`Loss.init`.

    :func:`bap_jax.run_info` makes one from a model and a data set. A number that nobody knows is 0.
    """

    apply: Apply  # of the model: a teacher's forward pass is this one
    num_classes: int
    bounds: Bounds
    image_shape: tuple[int, ...]
    num_examples: int  # size of the training set
    steps_per_epoch: int
    num_steps: int  # of this phase
    networks: Mapping[str, Network] = MappingProxyType({})  # "start", and each finished phase's by the phase's name
    init: Callable[[Array, Array], tuple[Params, ModelState]] | None = None  # of the model: which arrays it has


class Stages(NamedTuple):
    """The ``perturb`` of a budget in three stages, of which only the second sees the whole batch: so a batch is taken in chunks.

    ``measure(keys, logits_fn, batch, state, *, step) -> measured``, a pytree of arrays [B, ...], each row by itself;
    ``agree(measured, batch, state, *, gather) -> state`` of the whole batch;
    ``give(keys, logits_fn, batch, measured, state) -> Adversarial``, each row by itself, with the state just agreed on.
    """

    measure: Callable[..., PyTree]
    agree: Callable[..., PyTree]
    give: Callable[..., Adversarial]


class Budget(NamedTuple):
    """Which adversarial examples training sees: pure functions over an explicit state (the optax idea).

    ``init(info) -> state`` with the :class:`RunInfo` of the phase;
    ``perturb(keys, logits_fn, batch, state, *, step, gather) -> (Adversarial, state)`` with one key per row in ``keys``;
    ``axes(state)``: see :class:`Pruner`;
    ``stages``: what ``perturb`` is composed of, see :class:`Stages`. Without them a budget is taken in chunks only if it has
    nothing to gather.
    """

    init: Callable[[RunInfo], PyTree]
    perturb: Callable[..., tuple[Adversarial, PyTree]]
    axes: Callable[[PyTree], PyTree] | None = None
    stages: Stages | None = None


class Pruner(NamedTuple):
    """A pruning method: pure functions over an explicit state whose ``masks`` have the structure of ``params``.

    ``init(key, params) -> (trainable, state)``; one that can begin with a network that is pruned already takes
    ``init(key, params, masks=None)``, masks being an upper bound: no later mask keeps a weight that they prune. What is trainable
    is the weights themselves, or a dict with some of the keys ``weights``, ``scores`` and ``rates``
    (:func:`bap_jax.training.by_part` gives each an optimiser of its own);
    ``effective(trainable, state) -> params`` what the network computes with;
    ``penalty(step, trainable, state) -> scalar`` added to the loss;
    ``due(step, state) -> bool`` whether the masks change now;
    ``update(key, step, trainable, dense_grads, state) -> (trainable, state)`` the change, run under ``lax.cond``; with ``resets``
    it returns a third, bools of the structure of ``trainable``, each a scalar or of its leaf's shape;
    ``project(trainable, state) -> trainable`` run after every optimiser step, e.g. set pruned weights to zero again;
    ``finish(trainable, state) -> (params, masks)`` the pruned network.

    What follows may be left out, and then costs nothing:

    ``resets``: whether ``update`` says which entries of the optimiser's state (moments, momentum) begin at zero again;
    ``settled(step, state) -> bool`` whether the network that ``step`` steps have left has the sparsity asked for: only then may a
    checkpoint be the best. Without it, always;
    ``observe(state, measures) -> state`` on the host, after a validation and before its checkpoint, with what was measured by
    name; it keeps shapes and dtypes;
    ``ascend(trainable, gradients, state) -> trainable`` where the gradient is taken a second time, given the first (for methods
    that look for a flat minimum). The second gradient moves the unshifted ``trainable``;
    ``axes(state)``: the ``in_axes`` of ``jax.vmap`` over copies of the state, 0 or None for each leaf or for a whole subtree:
    None where all copies share it. What ``due`` reads has to be shared, or masks are computed at every step. Without it, 0
    everywhere.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    effective: Callable[[PyTree, PyTree], Params]
    penalty: Callable[[Array, PyTree, PyTree], Array]
    due: Callable[[Array, PyTree], Array]
    update: Callable[[Array, Array, PyTree, Params, PyTree], tuple[PyTree, ...]]
    project: Callable[[PyTree, PyTree], PyTree]
    finish: Callable[[PyTree, PyTree], tuple[Params, PyTree]]
    resets: bool = False
    settled: Callable[[Array, PyTree], Array] | None = None
    observe: Callable[[PyTree, Mapping[str, float]], PyTree] | None = None
    ascend: Callable[[PyTree, PyTree, PyTree], PyTree] | None = None
    axes: Callable[[PyTree], PyTree] | None = None


class Loss(NamedTuple):
    """What training minimises.

    ``init(params, model_state, info) -> state`` with the :class:`RunInfo` of the phase (a frozen teacher lives there: one of
    ``info.networks``; its forward pass is ``info.apply``, which the loss' factory closes over; or ``()``);
    ``value(forward, batch, adversarial, state, *, step, mean, gather) -> (scalar, metrics)``;
    ``axes(state)``: see :class:`Pruner`;
    ``per_example_mean``: whether the scalar is a mean over examples, each term of one example alone: then the losses of the parts
    of a batch, each with its share of the weight, average to that of the whole. Kernels over the batch (HSIC) are no such mean.
    ``forward(*images) -> (Outputs, ...)`` is one training-mode pass over the concatenation.
    ``mean(values [B], weight [B]) -> scalar`` is this device's share of the mean over the whole batch: shares averaged over
    devices give the mean. The returned scalar and metrics are shares in the same sense.
    """

    init: Callable[[Params, ModelState, RunInfo], PyTree]
    value: Callable[..., tuple[Array, dict[str, Array]]]
    axes: Callable[[PyTree], PyTree] | None = None
    per_example_mean: bool = True


class Recipe(NamedTuple):
    """The filled slots of one phase: what the one train step is made of. ``*recipe`` passes them on in this order."""

    optimizer: optax.GradientTransformation
    pruner: Pruner
    budget: Budget
    loss: Loss


class Length(NamedTuple):
    """How long a phase is: so many epochs or so many steps, one of the two."""

    epochs: float | None = None
    steps: int | None = None


class Phase(NamedTuple):
    """One phase of a method, as data: what of it is left out is as the run says.

    A phase begins with the weights, the BatchNorm statistics and the masks of one before; its optimiser starts anew; ``step``,
    ramps, schedules and :attr:`RunInfo.num_steps` count within it.
    """

    name: str  # e.g. pretrain, prune, finetune
    # "optimizer", "pruner", "budget", "loss": (its name, its options), or an object, or a function of the info that makes it; or
    # a Recipe, or a function of the info that makes one
    slots: Mapping[str, Any] | Recipe | Callable[[RunInfo], Recipe]
    length: Length | None = None
    until: Callable[[PyTree], bool] | None = None  # of the pruner's state, asked at the end of an epoch: the phase ends there
    patience: int | None = None  # epochs in a row without a smaller loss on validation data, after which the phase ends
    # (info, network, batches, key) -> masks, before the first step, handed to Pruner.init
    score: Callable[[RunInfo, Network, Any, Array], PyTree] | None = None
    weights: Literal["last", "best", "start"] = "last"  # of the phase before, or what the run started from
    masks: Literal["last", "best", "start"] = "last"


class Method(NamedTuple):
    """A published method, as data: settings of a run with their published values, and phases where it has several.

    A phase fills the slots that differ in it, by name and options as settings have them; what it leaves out is as the run says.
    So a slot that is replaced for the run is replaced in every phase that does not fill it itself.
    """

    name: str
    settings: Mapping[str, Any]  # name of a setting, options by their dotted names -> its value by default under this method
    taxonomy: Taxonomy
    reference: str
    differs: str  # what of the original is not known, left out or otherwise here
    phases: tuple[Phase, ...] = ()  # none: one phase, as long as the run


class Taxonomy(NamedTuple):
    """A method's place among the others, in the words of Piras et al. 2024, "Adversarial Pruning: A Survey and Benchmark"."""

    # "none" where nothing is pruned; else "after: pretraining, finetuning, 1S or IT" (one shot, iterative), "before: how pruned,
    # how trained, 1S or IT" or "during: training"; in words such as AT, FGSM-AT, KD
    pipeline: str
    structure: str  # "US" (single weights), "S" (filters, channels)
    locality: str  # "L" (within layers), "G" (over the whole network)
    criterion: str  # LWM, SOLWM, RELWM, LIS, HGM, BCS
    attacks: bool  # whether adversarial examples are made while it prunes or afterwards
    pretrained: bool  # whether it begins with a trained network
