"""The fixed parts of a run: a model, data, phases and how they are trained."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bap_jax.data import Splits, steps_per_epoch, train_batches
from bap_jax.errors import SettingError
from bap_jax.parallel import (
    check_batch_size,
    check_chunks,
    data_mesh,
    jit_step,
    own_rows,
    replicate,
    replicated,
    shard_state,
    sharded_init,
)
from bap_jax.runs.info import run_info
from bap_jax.runs.recipe import augmented, compiled_step, model_of, recipe_of
from bap_jax.runs.scoring import scoring_of
from bap_jax.runs.settings import Settings
from bap_jax.runs.training_options import TrainingOptions, options_of
from bap_jax.training import TrainState, init_state, make_train_step, with_average
from bap_jax.training.phases import check_phases, phase_key, phase_seed, steps_of
from bap_jax.training.step import check_microbatches
from bap_jax.types import Apply, Array, Batch, Budget, Length, Loss, Model, Network, Phase, Pruner, PyTree, Recipe, RunInfo

SCORE_STREAM = 2**31 - 2  # folded into a phase's key for its scores, a number that no step has
SLOTS: dict[str, Any] = {"optimizer": optax.GradientTransformation, "pruner": Pruner, "budget": Budget, "loss": Loss}


@dataclasses.dataclass(frozen=True)
class OfSettings:
    """The recipe that settings name: what fills the slots of a phase that settings describe."""

    settings: Settings

    def __call__(self, info: RunInfo) -> Recipe:
        return recipe_of(self.settings, info)


class Run(NamedTuple):
    """The fixed parts of a run.

    Attributes:
      lengths: steps of each phase, at most.
      mesh: the devices that the batch is spread over; None for one.
      shard: whether the state is spread over them, too, leaf by leaf (:func:`bap_jax.parallel.sharding_of`).
      settings: those that it was made of, None for a run of objects.
      masked: whether the pruner of the first phase begins with the masks of the network that the run starts from.
    """

    model: Model
    splits: Splits
    phases: tuple[Phase, ...]
    lengths: tuple[int, ...]
    options: TrainingOptions
    mesh: Any = None
    settings: Settings | None = None
    masked: bool = False
    shard: bool = False

    @property
    def num_steps(self) -> int:
        """Steps of all phases, at most."""
        return sum(self.lengths)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.splits.train), self.options.batch_size)

    @property
    def example(self) -> Array:
        """[1, ...] images of the shape that the model is made for."""
        return jnp.zeros((1, *self.splits.train.image_shape), jnp.float32)

    def key(self, number: int = 0) -> Array:
        """The key of a phase."""
        return phase_key(jax.random.key(self.options.seed), number)

    def batches(self, number: int = 0, start: int = 0, stop: int | None = None, *, whole: bool = False) -> Any:
        """The batches of a phase, from the one of the step ``start`` within it to before that of ``stop``: of several hosts each
        its own rows, or all rows (``whole``).
        """
        return train_batches(
            self.splits.train,
            seed=phase_seed(self.options.seed, number),
            batch_size=self.options.batch_size,
            start_step=start,
            stop_step=stop,
            rows=slice(None) if whole else own_rows(self.mesh, self.options.batch_size),
        )

    def info(self, number: int = 0, networks: Mapping[str, Network] | None = None) -> RunInfo:
        """What the slots of a phase are told."""
        made = run_info(self.model, self.splits.train, num_steps=self.lengths[number], batch_size=self.options.batch_size)
        return made._replace(networks=networks or {})

    def recipe(self, number: int = 0, info: RunInfo | None = None) -> Recipe:
        """The filled slots of a phase.

        Raises:
          SettingError: one is not filled, or with something else.
        """
        phase, info = self.phases[number], info or self.info(number)
        slots: Any = phase.slots
        if isinstance(slots, Mapping):
            slots = _filled(phase, slots, info)
        made = slots if isinstance(slots, Recipe) else slots(info)
        if not isinstance(made, Recipe):
            raise SettingError(
                f"slots of the phase {phase.name}", type(made).__name__, "a Recipe, or a function that returns one"
            )
        return made

    def first_state(
        self, number: int, recipe: Recipe, info: RunInfo, given: Network | None = None, masks: PyTree | None = None
    ) -> TrainState:
        """The state before the first step of a phase: on the default device, or spread as it will be and never whole on one.

        Args:
          number, recipe, info: of the phase.
          given: weights and statistics to begin with; None for new ones.
          masks: what the pruner begins with; None for nothing.
        """

        def made() -> TrainState:
            state = init_state(
                self.model,
                *recipe,
                key=self.key(number),
                images=self.example,
                info=info,
                params=None if given is None else given.params,
                model_state=None if given is None else given.model_state,
                masks=masks,
            )
            return with_average(state, recipe.pruner, self.options.ema) if self.options.ema else state

        return sharded_init(self.mesh, made) if self.shard and given is None and masks is None else made()

    def scores(self, number: int, info: RunInfo, network: Network) -> PyTree:
        """The masks that a phase's score finds before its first step."""
        score = self.phases[number].score
        assert score is not None
        batches = self.batches(number, whole=True)  # every host finds the same masks
        try:
            return score(info, network, batches, jax.random.fold_in(self.key(number), SCORE_STREAM))
        finally:
            if isinstance(batches, Generator):  # a thread of its own
                batches.close()

    def compiled(self, number: int, recipe: Recipe) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
        """The jitted step of a phase: one and the same for the same objects, and for settings that differ only in what the state
        carries.
        """
        slots, train = self.phases[number].slots, self.splits.train
        if isinstance(slots, OfSettings):
            return compiled_step(slots.settings, recipe, train.num_classes, train.bounds, self.mesh, self.shard)
        apply: Any = self.model.apply  # a protocol does not say that functions hash
        chunks = self.options.microbatches, self.options.attack_chunks
        return _compiled(apply, recipe, self.mesh, self.options.augment, chunks, self.shard)

    def place(self, state: TrainState) -> TrainState:
        """The state on the devices that the run is spread over."""
        if self.mesh is None:
            return state
        return shard_state(self.mesh, state) if self.shard else replicate(self.mesh, state)


@functools.lru_cache(maxsize=16)
def _compiled(apply: Apply, recipe: Recipe, mesh: Any, augment: bool, chunks: tuple[int, int], shard: bool) -> Callable:
    step = make_train_step(apply, *recipe, microbatches=chunks[0], attack_chunks=chunks[1])
    return jit_step(augmented(step) if augment else step, mesh, shard=shard)


def _filled(phase: Phase, slots: Mapping[str, Any], info: RunInfo) -> Recipe:
    """Slots one by one: each an object, a function of the info that makes it, or a name and options as settings have them."""
    unknown = [name for name in slots if name not in SLOTS]
    if unknown:
        raise SettingError(f"slot of the phase {phase.name}", unknown[0], "one of " + ", ".join(SLOTS))
    named = {name: value for name, value in slots.items() if type(value) is tuple}
    made = _named(phase, named, info)._asdict() if named else {}
    for name, kind in SLOTS.items():
        if name not in named:
            value = slots.get(name)
            made[name] = value(info) if callable(value) and not isinstance(value, kind) else value
        if not isinstance(made[name], kind):
            expected = f"a {kind.__name__}, a function that returns one, or a name and its options"
            raise SettingError(f"{name} of the phase {phase.name}", made[name], expected)
    return Recipe(**made)


def _named(phase: Phase, named: Mapping[str, tuple[str, Mapping[str, Any]]], info: RunInfo) -> Recipe:
    """The recipe of the settings that names and options make."""
    told: dict[str, Any] = {slot: name for slot, (name, _) in named.items()}
    for _, options in named.values():
        told |= options
    try:
        settings = Settings(**told)
    except SettingError as error:
        raise SettingError(f"slots of the phase {phase.name}", told, f"names and options of settings ({error})") from None
    return recipe_of(settings.check(), info)


def phases_of(settings: Settings) -> tuple[Phase, ...]:
    """The phases that settings describe: those of their method, or one."""
    parts = settings.in_phases() or ((Phase("train", {}), settings),)
    return tuple(
        phase._replace(slots=OfSettings(own), length=_length(own), patience=own.patience, score=scoring_of(own) or phase.score)
        for phase, own in parts
    )


def _length(settings: Settings) -> Length:
    return Length(steps=settings.steps) if settings.steps is not None else Length(epochs=settings.epochs)


def prepare(settings: Settings, splits: Splits, devices: int | None, shard: bool = False) -> Run:
    """Builds everything that a run of settings needs and refuses what cannot work, before any work starts.

    Args:
      settings: checked here.
      splits: the data.
      devices: how many devices to spread the batch over; None for all.
      shard: whether to spread the state over them, too.

    Raises:
      SettingError: a setting that makes no sense by itself, with this data or with these devices.
    """
    settings.check()
    settings.check_radii(splits.train.bounds, splits.train.image_shape)
    mesh = data_mesh(devices)
    check_batch_size(settings.batch_size, mesh, "--batch-size")
    for name in ("microbatches", "attack_chunks"):
        check_chunks(settings.batch_size, mesh, getattr(settings, name), "--" + name.replace("_", "-"))
    if shard and mesh.size == 1:
        raise SettingError("--shard", "state", "none on a single device; --devices takes several")
    run = run_of(
        model_of(settings, splits.train.num_classes), phases_of(settings), splits, options_of(settings, splits.train), mesh
    )
    if settings.init_from is None:
        _check_loss(run, run.recipe(), settings.loss_name)
    masked = settings.init_from is not None and settings.init_masks != "none"
    return run._replace(settings=settings, masked=masked, shard=shard)


def _check_loss(run: Run, recipe: Recipe, name: str) -> None:
    """Refuses chunks for a loss that is no mean over examples."""
    check_microbatches(run.options.microbatches, recipe.loss, "--microbatches", name)


def run_of(model: Model, phases: tuple[Phase, ...], splits: Splits, options: TrainingOptions, mesh: Any) -> Run:
    """A run of objects, its phases looked at.

    Raises:
      SettingError: phases that make no sense.
    """
    check_phases(phases)
    per_epoch = steps_per_epoch(len(splits.train), options.batch_size)
    lengths = tuple(steps_of(phase, per_epoch) for phase in phases)
    return Run(model, splits, phases, lengths, options, mesh if mesh.size > 1 else None)


def check_model(run: Run, recipe: Recipe, state: TrainState, name: str) -> None:
    """Refuses a network whose shapes do not fit or whose outputs look like probabilities; ``name`` is what errors call it."""
    images, _ = run.splits.train.read(np.arange(min(32, len(run.splits.train))))
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    params = recipe.pruner.effective(state.trainable, state.prune)
    predict = lambda params, model_state, images: run.model.apply(params, model_state, images, train=False)[0].logits  # noqa: E731
    if run.shard:  # no process has all of the weights
        predict = jax.jit(predict, out_shardings=replicated(run.mesh))
    logits = np.asarray(predict(params, state.model_state, jnp.asarray(images, jnp.float32) / scale))
    classes = run.splits.train.num_classes
    if logits.shape != (len(images), classes):
        raise SettingError("--model", name, f"logits of shape [B, {classes}], not {logits.shape}")
    if logits.min() >= 0 and np.allclose(logits.sum(-1), 1.0, atol=1e-3):
        raise SettingError("--model", name, "a model that returns logits; these outputs look like probabilities")
    for number, phase in enumerate(run.phases):
        if isinstance(phase.slots, OfSettings):
            made = run.recipe(number)
            _check_pruner(phase, made.pruner, params)
            _check_loss(run, made, phase.slots.settings.loss_name)


def _check_pruner(phase: Phase, pruner: Pruner, params: PyTree) -> None:
    """Refuses a pruner that cannot begin with the network: a later phase would find out after those before it."""
    assert isinstance(phase.slots, OfSettings)
    settings = phase.slots.settings
    try:
        jax.eval_shape(pruner.init, jax.random.key(0), params)
    except SettingError as error:
        if error.name != "params":  # of what only the phase before it brings
            return
        narrow = settings.pruner_options.values().get("prunable") == "convolutions"
        more = f"; --{phase.name}.pruner.prunable kernels prunes dense layers, too" if narrow else ""
        raise SettingError(f"--{phase.name}.pruner", settings.pruner, error.expected + more) from None
