"""From settings to the pieces of a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from bap_jax import budgets, losses, pruners
from bap_jax.attacks import fgsm, pgd
from bap_jax.budgets import BudgetAttack, parse_cutoff
from bap_jax.data import augment
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import cross_entropy, soft_margin_loss
from bap_jax.mathematics.schedules import Ramp
from bap_jax.models import build as build_model
from bap_jax.parallel import jit_step
from bap_jax.plugins import import_object, is_import_path
from bap_jax.runs.optimizer import optimizer_of
from bap_jax.runs.settings import Settings, parse_fractions, schedule_of
from bap_jax.training import TrainState, make_train_step
from bap_jax.types import Array, Batch, Bounds, Budget, Loss, Model, Pruner, Recipe, RunInfo

T = TypeVar("T")
OBJECTIVES = {"cross-entropy": cross_entropy, "soft-margin": soft_margin_loss}
AUGMENT_STREAM = 2**31 - 1  # folded into the run's key, a number that no step has


def model_of(name: str, num_classes: int) -> Model:
    """The model of that name (one and the same object for the same arguments, so that compiled functions are found again)."""
    return _cached_model(name, num_classes)


@functools.lru_cache
def _cached_model(name: str, num_classes: int) -> Model:
    model = build_model(name, num_classes=num_classes)
    return model._replace(init=jax.jit(model.init))


def recipe_of(settings: Settings, info: RunInfo) -> Recipe:
    """Optimiser, pruner, budget and loss. A ``package.module:factory`` is called as ``factory(settings, ramp, bounds)``, with the
    ramp in steps and the bounds of the images, and returns the slot.
    """
    given = settings, settings.ramp(info.num_steps), info.bounds
    return Recipe(_optimizer(*given, info.num_steps or None), _pruner(*given), _budget(*given), _loss(*given))


def _own(slot: str, settings: Settings, ramp: Ramp, bounds: Bounds, kind: type[T]) -> T:
    """What the user's own factory makes for a slot."""
    path = getattr(settings, slot)
    made = import_object(f"--{slot}", path)(settings, ramp, bounds)
    if not isinstance(made, kind):
        raise SettingError(f"--{slot}", path, f"a factory that returns a {kind.__name__}, not a {type(made).__name__}")
    return made


def _optimizer(settings: Settings, ramp: Ramp, bounds: Bounds, num_steps: int | None) -> optax.GradientTransformation:
    own = is_import_path(settings.optimizer)
    made = _own("optimizer", settings, ramp, bounds, optax.GradientTransformation) if own else None
    return optimizer_of(settings, num_steps, made)


def _pruner(settings: Settings, ramp: Ramp, bounds: Bounds) -> Pruner:
    if is_import_path(settings.pruner):
        made = _own("pruner", settings, ramp, bounds, Pruner)
        return made if made.settled else made._replace(settled=lambda step, state: step > ramp.end_step)
    if settings.pruner == "dense":
        return pruners.dense()
    return pruners.magnitude(
        ramp, schedule=schedule_of(settings.schedule), scope=settings.scope, distribution=settings.distribution
    )


def _attack(
    settings: Settings,
    ramp: Ramp,
    bounds: Bounds,
    *,
    random_start: bool = True,
    step_size: Callable[[Array], Array] | None = None,
) -> BudgetAttack:
    """The attack of training; a budget may want another start, or another step at a radius than 2.5 / steps of it."""
    if is_import_path(settings.attack):
        return _own("attack", settings, ramp, bounds, Callable)  # type: ignore[arg-type]
    if settings.attack_objective == "kl":
        return functools.partial(budgets.friendly_pgd, **_friendly(settings, bounds), start="normal")
    objective = OBJECTIVES[settings.attack_objective]
    if settings.attack == "fgsm":

        def one_step(logits_fn, keys, images, labels, *, epsilon):
            return fgsm(logits_fn, keys, images, labels, epsilon=epsilon, norm=settings.norm, bounds=bounds, objective=objective)

        return one_step

    relative = settings.step_size
    if relative is not None:
        step_size = lambda epsilon: relative * epsilon  # noqa: E731

    def several_steps(logits_fn, keys, images, labels, *, epsilon):
        return pgd(
            logits_fn,
            keys,
            images,
            labels,
            epsilon=epsilon,
            num_steps=settings.attack_steps,
            norm=settings.norm,
            step_size=None if step_size is None else step_size(epsilon),
            random_start=random_start,
            bounds=bounds,
            objective=objective,
        )

    return several_steps


def _friendly(settings: Settings, bounds: Bounds) -> dict[str, Any]:
    """What of the settings :func:`bap_jax.attacks.friendly_pgd` takes."""
    objective = "kl" if settings.attack_objective == "kl" else OBJECTIVES[settings.attack_objective]
    given = {"num_steps": settings.attack_steps, "norm": settings.norm, "bounds": bounds, "objective": objective}
    return given | _given(relative_step_size=settings.step_size)


def _given(**values: Any) -> dict[str, Any]:
    """Those that are not None: the others keep the defaults of what they are given to, the published values."""
    return {name: value for name, value in values.items() if value is not None}


def _budget(settings: Settings, ramp: Ramp, bounds: Bounds) -> Budget:
    if is_import_path(settings.budget):
        return _own("budget", settings, ramp, bounds, Budget)
    if settings.budget == "none":
        return budgets.none()
    if settings.budget == "fat":
        return _fat(settings, bounds)
    if settings.budget == "iaat":
        return _iaat(settings, ramp, bounds)
    attack = _attack(settings, ramp, bounds, random_start=settings.budget != "cat")
    if settings.budget == "uniform":
        return budgets.uniform(attack, settings.radius())
    if settings.budget == "mma":
        radii = _given(epsilon_min=settings.epsilon_min, epsilon_max=settings.epsilon_max)
        return budgets.mma(attack, num_bisections=settings.num_bisections, bounds=bounds, **radii)
    if settings.budget == "cat":
        radii = _given(epsilon_step=settings.epsilon_step, epsilon_max=settings.epsilon_max)
        return budgets.cat(attack, label_factor=settings.label_factor, **radii)
    return budgets.cutoff_scale(
        search_of(settings, bounds),
        attack if settings.example == "fresh" else None,
        cutoff=parse_cutoff(settings.cutoff),
        scale=settings.scale,
        wrong=settings.wrong,
        over=settings.cutoff_over,
        norm=settings.norm,
        epsilon_max=settings.epsilon_max,
        bounds=bounds,
    )


def search_of(settings: Settings, bounds: Bounds) -> budgets.Search:
    """How a blind run finds the margin of an example."""
    if settings.search == "deepfool":
        return budgets.deepfool_search(num_steps=settings.search_steps or 5, bounds=bounds)
    return budgets.pgd_search(
        norm=settings.norm,
        num_steps=settings.search_steps or 1,
        num_bisections=settings.num_bisections,
        path=settings.path,
        halving=settings.halving,
        bounds=bounds,
    )


def _iaat(settings: Settings, ramp: Ramp, bounds: Bounds) -> Budget:
    def published(epsilon: Array) -> Array:
        return jnp.maximum(2 * epsilon / settings.attack_steps, 2 / 255)

    attack = _attack(settings, ramp, bounds, step_size=published if settings.norm == "linf" else None)
    given = _given(epsilon=settings.radius() if settings.epsilon else None, epsilon_step=settings.epsilon_step)

    return budgets.iaat(attack, warmup=settings.epsilon_warmup, rate=settings.epsilon_rate, **given)


def _fat(settings: Settings, bounds: Bounds) -> Budget:
    rises = parse_fractions("--tau-rises", settings.tau_rises)
    given = _friendly(settings, bounds) | _given(epsilon=settings.radius() if settings.epsilon else None)
    return budgets.fat(tau_rises=rises, **given)


def _loss(settings: Settings, ramp: Ramp, bounds: Bounds) -> Loss:
    if is_import_path(settings.loss):
        return _own("loss", settings, ramp, bounds, Loss)
    name, smoothing = settings.loss_name, settings.label_smoothing
    if name == "mix":
        return losses.mix(adversarial_weight=settings.adversarial_weight, label_smoothing=smoothing)
    if name in ("trades", "mart"):
        return {"trades": losses.trades, "mart": losses.mart}[name](beta=settings.beta, label_smoothing=smoothing)
    return {"clean": losses.clean, "madry": losses.madry, "mma": losses.mma}[name](label_smoothing=smoothing)


def compiled_step(settings: Settings, recipe: Recipe, num_classes: int, bounds: Bounds, mesh) -> Callable:
    """The jitted train step; runs that differ only in what the state carries share one, and one compile.

    A run with the user's own slots shares none: a factory may build any setting into its slot.
    """
    if settings.own_slots():
        return jit_step(step_of(settings, recipe, num_classes), mesh)
    return _cached_step(settings.traced(), num_classes, bounds, mesh)


@functools.lru_cache(maxsize=64)
def _cached_step(settings: Settings, num_classes: int, bounds: Bounds, mesh) -> Callable:
    return jit_step(step_of(settings, traced_recipe(settings, num_classes, bounds), num_classes), mesh)


def traced_recipe(settings: Settings, num_classes: int, bounds: Bounds) -> Recipe:
    """The slots that a compiled step is made of, by :meth:`Settings.traced` settings: what differs comes with the state."""
    apply = model_of(settings.model, num_classes).apply
    # the step sees nothing of sizes: images and tables come with the batch and the state
    info = RunInfo(apply, num_classes, bounds, image_shape=(), num_examples=0, steps_per_epoch=0, num_steps=2)
    return recipe_of(settings, info)


def step_of(settings: Settings, recipe: Recipe, num_classes: int) -> Callable:
    """The train step before it is jitted, on augmented images where the settings say so."""
    step = make_train_step(model_of(settings.model, num_classes).apply, *recipe)
    return augmented(step) if settings.augment else step


def augmented(step: Callable) -> Callable:
    """The step on shifted and flipped images, the randomness being a function of the run's key, the step and the row."""

    def wrapped(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.fold_in(state.key, AUGMENT_STREAM), state.step)
        rows: Array = jnp.arange(batch.labels.shape[0])
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
        return step(state, batch._replace(images=augment(keys, batch.images)))

    return wrapped
