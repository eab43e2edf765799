"""What makes the parts of a train step of settings: one function for each row of :mod:`bap_jax.runs.slots`.

Each is called as ``function(settings, info, options)``, the options being those of its own kind.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from bap_jax import budgets, losses, pruners
from bap_jax.attacks import fgsm, n_fgsm, pgd, rs_fgsm
from bap_jax.budgets import BudgetAttack, parse_cutoff
from bap_jax.errors import SettingError
from bap_jax.mathematics.channels import Groups
from bap_jax.mathematics.group_masks import Structures, group_masks
from bap_jax.mathematics.masks import convolutions, kernels
from bap_jax.mathematics.objectives import cross_entropy, soft_margin_loss
from bap_jax.plugins import import_object
from bap_jax.runs import options
from bap_jax.runs.parsing import parse_fractions
from bap_jax.runs.phased import PRETRAIN
from bap_jax.runs.settings import Settings, schedule_of
from bap_jax.runs.slots import OLD_FORM, takes_settings
from bap_jax.structure import groups_of
from bap_jax.training.phases import START
from bap_jax.types import Array, Bounds, Budget, Loss, Model, Pruner, PyTree, RunInfo

MADE: dict[str, tuple[Any, str]] = {  # what a slot takes, and how that is called
    "budget": (Budget, "Budget"),
    "attack": (Callable, "Callable"),
    "pruner": (Pruner, "Pruner"),
    "optimizer": (optax.GradientTransformation, "GradientTransformation"),
    "loss": (Loss, "Loss"),
}
OBJECTIVES = {"cross-entropy": cross_entropy, "soft-margin": soft_margin_loss}


def filled(slot: str, settings: Settings, info: RunInfo, **hints: Any) -> Any:
    """What fills a slot.

    Args:
      slot: which one.
      settings: name and options of what fills it.
      info: what is told to it.
      **hints: what another slot asks of it; code of one's own is not told.

    Raises:
      SettingError: the user's own factory does not return what the slot takes.
    """
    if settings.knows(slot):
        factory = import_object(f"--{slot}", settings.row(slot).factory)
        return factory(settings, info, settings.options(slot), **hints)
    path = getattr(settings, slot)
    factory = import_object(f"--{slot}", path)
    if takes_settings(factory):
        form = f"factory({', '.join(OLD_FORM)})"
        text = f"{path} is called as {form} for one release more; write it as factory(info, **options)"
        warnings.warn(text, FutureWarning, stacklevel=2)
        made = factory(settings, settings.ramp(info.num_steps), info.bounds)
    else:
        made = factory(info, **settings.options(slot).values())
    kind, called = MADE[slot]
    if not isinstance(made, kind):
        raise SettingError(f"--{slot}", path, f"a factory that returns a {called}, not a {type(made).__name__}")
    if isinstance(made, Pruner) and made.settled is None:
        end = settings.ramp(info.num_steps).end_step
        return made._replace(settled=lambda step, state: step > end)
    return made


def _given(**values: Any) -> dict[str, Any]:
    """Those that are not None: the others keep the defaults of what they are given to, the published values."""
    return {name: value for name, value in values.items() if value is not None}


# Attacks of training. A budget may want another start, or another step at a radius than 2.5 / steps of it.


def several_steps(
    settings: Settings,
    info: RunInfo,
    own: options.PGD,
    *,
    random_start: bool = True,
    step_size: Callable[[Array], Array] | None = None,
) -> BudgetAttack:
    """PGD; with the objective kl, friendly PGD from near the image."""
    if settings.attack_objective == "kl":
        return functools.partial(budgets.friendly_pgd, **_friendly(settings, info), start="normal")
    objective, relative = OBJECTIVES[settings.attack_objective], own.step_size
    if relative is not None:
        step_size = lambda epsilon: relative * epsilon  # noqa: E731

    def attack(logits_fn, keys, images, labels, *, epsilon):
        return pgd(
            logits_fn,
            keys,
            images,
            labels,
            epsilon=epsilon,
            num_steps=own.num_steps,
            norm=settings.norm,
            step_size=None if step_size is None else step_size(epsilon),
            random_start=random_start,
            bounds=info.bounds,
            objective=objective,
        )

    return attack


def one_step(settings: Settings, info: RunInfo, own: options.FGSM, **hints: Any) -> BudgetAttack:
    """FGSM; it has no start and no step to choose."""
    return _single_step(fgsm, settings, info)


def one_step_from_the_ball(settings: Settings, info: RunInfo, own: options.RSFGSM, **hints: Any) -> BudgetAttack:
    """FGSM with a random start; start and step are what makes it this attack, and no budget chooses them."""
    return _single_step(rs_fgsm, settings, info, step_size=own.step_size)


def one_step_from_noise(settings: Settings, info: RunInfo, own: options.NFGSM, **hints: Any) -> BudgetAttack:
    """N-FGSM, which leaves the ball; start and step are what makes it this attack, and no budget chooses them."""
    return _single_step(n_fgsm, settings, info, noise=own.noise, step_size=own.step_size)


def _single_step(function: Callable, settings: Settings, info: RunInfo, **own: float) -> BudgetAttack:
    given: dict[str, Any] = {"norm": settings.norm, "bounds": info.bounds, "objective": OBJECTIVES[settings.attack_objective]}

    def attack(logits_fn, keys, images, labels, *, epsilon):
        return function(logits_fn, keys, images, labels, epsilon=epsilon, **given, **own)

    return attack


def _friendly(settings: Settings, info: RunInfo) -> dict[str, Any]:
    """What of the settings :func:`bap_jax.attacks.friendly_pgd` takes."""
    own: options.PGD = settings.attack_options
    objective = "kl" if settings.attack_objective == "kl" else OBJECTIVES[settings.attack_objective]
    given = {"num_steps": own.num_steps, "norm": settings.norm, "bounds": info.bounds, "objective": objective}
    return given | _given(relative_step_size=own.step_size)


# Budgets.


def no_budget(settings: Settings, info: RunInfo, own: options.Clean) -> Budget:
    """Clean training."""
    return budgets.none()


def uniform(settings: Settings, info: RunInfo, own: options.Uniform) -> Budget:
    """The same radius for all."""
    assert own.epsilon is not None, "checked settings have one"
    return budgets.uniform(filled("attack", settings, info), own.epsilon)


def cutoff_scale(settings: Settings, info: RunInfo, own: options.CutoffScale) -> Budget:
    """Blind."""
    return budgets.cutoff_scale(
        search_of(settings, info.bounds),
        filled("attack", settings, info) if own.example == "fresh" else None,
        cutoff=parse_cutoff(own.cutoff),
        scale=own.scale,
        wrong=own.wrong,
        over=own.cutoff_over,
        norm=settings.norm,
        epsilon_max=own.epsilon_max,
        bounds=info.bounds,
    )


def search_of(settings: Settings, bounds: Bounds) -> budgets.Search:
    """How a blind run finds the margin of an example."""
    own: options.CutoffScale = settings.budget_options
    if own.search == "deepfool":
        return budgets.deepfool_search(num_steps=own.search_steps or 5, bounds=bounds)
    return budgets.pgd_search(
        norm=settings.norm,
        num_steps=own.search_steps or 1,
        num_bisections=own.num_bisections,
        path=own.path,
        halving=own.halving,
        bounds=bounds,
    )


def mma(settings: Settings, info: RunInfo, own: options.MMA) -> Budget:
    """Margins, found again in every epoch."""
    radii = _given(epsilon_min=own.epsilon_min, epsilon_max=own.epsilon_max)
    attack = filled("attack", settings, info)
    return budgets.mma(attack, num_bisections=own.num_bisections, bounds=info.bounds, **radii)


def iaat(settings: Settings, info: RunInfo, own: options.IAAT) -> Budget:
    """Budgets that adapt, with the published step in linf."""
    num_steps = settings.attack_options.values().get("num_steps", 1)

    def published(epsilon: Array) -> Array:
        return jnp.maximum(2 * epsilon / num_steps, 2 / 255)

    attack = filled("attack", settings, info, step_size=published if settings.norm == "linf" else None)
    given = _given(epsilon=own.epsilon, epsilon_step=own.epsilon_step)
    return budgets.iaat(attack, warmup=own.epsilon_warmup, rate=own.epsilon_rate, **given)


def cat(settings: Settings, info: RunInfo, own: options.CAT) -> Budget:
    """Budgets and labels that adapt; its attack starts at the image."""
    radii = _given(epsilon_step=own.epsilon_step, epsilon_max=own.epsilon_max)
    return budgets.cat(filled("attack", settings, info, random_start=False), label_factor=own.label_factor, **radii)


def fat(settings: Settings, info: RunInfo, own: options.FAT) -> Budget:
    """Attacks that stop early."""
    rises = parse_fractions(own.spoken("tau_rises"), own.tau_rises)
    return budgets.fat(tau_rises=rises, **_friendly(settings, info), **_given(epsilon=own.epsilon))


# Pruners.


def magnitude(settings: Settings, info: RunInfo, own: options.Magnitude) -> Pruner:
    """The largest weights stay."""
    ramp = settings.ramp(info.num_steps)
    return pruners.magnitude(ramp, schedule=schedule_of(settings.schedule), scope=own.scope, distribution=own.distribution)


def structured(settings: Settings, info: RunInfo, own: options.Structured) -> Pruner:
    """The structures of highest score stay."""
    groups = _groups_with(settings, info, own.values())
    return pruners.structured(settings.ramp(info.num_steps), groups, schedule=schedule_of(settings.schedule), **own.values())


def at_start(settings: Settings, info: RunInfo, own: options.AtStart) -> Pruner:
    """The same, once, before the first step; single weights, too."""
    told = own.values()
    single = {"structure": "block", "block": (1, 1)} if own.structure == pruners.WEIGHT else {}
    return pruners.at_start(settings.final_sparsity, _groups_with(settings, info, told | single), **told)


def _groups_with(settings: Settings, info: RunInfo, told: dict[str, Any]) -> Groups:
    """The channels of the network, as its own forward pass has them; what it has not, say a BatchNorm, is found out now."""
    if info.init is None:
        expected = f"the initialisation of the network, whose arrays --pruner {settings.pruner} has to see"
        raise SettingError("info.init", None, expected)
    params, groups = _groups(info.init, cast(Any, info.apply), info.image_shape)
    try:
        jax.eval_shape(lambda params, key: group_masks(params, 0.5, groups, key=key, **told), params, jax.random.key(0))
    except SettingError as error:
        name, value = (f"--pruner.{error.name}", error.value) if error.name in told else ("--pruner", settings.pruner)
        raise SettingError(name, value, error.expected) from None
    return groups


@functools.lru_cache(maxsize=16)
def _groups(init: Callable, apply: Any, image_shape: tuple[int, ...]) -> tuple[PyTree, Groups]:
    """The shapes of a network's parameters, and its channels; every phase and every look at a recipe asks for them."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    params, model_state = jax.eval_shape(init, jax.random.key(0), images)
    return params, groups_of(Model(init, apply), params, model_state, image_shape)


def dense(settings: Settings, info: RunInfo, own: options.PrunerOptions) -> Pruner:
    """Nothing is pruned."""
    return pruners.dense()


PRUNABLE = {"kernels": kernels, "convolutions": convolutions}
PUBLISHED_STEPS = 78200  # of Flying Bird's 200 epochs on CIFAR-10


def _epoch(info: RunInfo) -> int:
    return max(1, info.steps_per_epoch)


def fixed(settings: Settings, info: RunInfo, own: options.Layered) -> Pruner:
    """The masks that the phase begins with."""
    return pruners.fixed(prunable=PRUNABLE[own.prunable])


def scored(settings: Settings, info: RunInfo, own: options.Layered) -> Pruner:
    """The masks that were found before the first step (:mod:`bap_jax.runs.scoring`)."""
    return pruners.fixed(prunable=PRUNABLE[own.prunable])


def hydra(settings: Settings, info: RunInfo, own: options.Hydra) -> Pruner:
    """Scores."""
    given: dict[str, Any] = {"prunable": PRUNABLE[own.prunable], "structures": _structures(settings, info, own)}
    return pruners.hydra(settings.final_sparsity, scope=own.scope, **given)


def s2ap(settings: Settings, info: RunInfo, own: options.S2AP) -> Pruner:
    """Scores at the worst place nearby."""
    return pruners.s2ap(hydra(settings, info, own), gamma=own.gamma)


def harp(settings: Settings, info: RunInfo, own: options.HARP) -> Pruner:
    """Scores and rates."""
    given: dict[str, Any] = {"gamma": own.gamma, "initial": own.initial, "prunable": PRUNABLE[own.prunable]}
    return pruners.harp(settings.final_sparsity, frequency=_epoch(info), **given)


def edge_popup(settings: Settings, info: RunInfo, own: options.Scored) -> Pruner:
    """Scores of random weights."""
    given: dict[str, Any] = {"prunable": PRUNABLE[own.prunable], "structures": _structures(settings, info, own)}
    return pruners.edge_popup(settings.final_sparsity, **given)


def _structures(settings: Settings, info: RunInfo, own: options.Scored) -> Structures | None:
    """The structures that scores compete for, if it is not single weights."""
    if own.structure == "irregular":
        return None
    told: dict[str, Any] = {"structure": own.structure, "scope": "coupled" if own.coupled else "layer"}
    return Structures(_groups_with(settings, info, told), **told)


def admm(settings: Settings, info: RunInfo, own: options.ADMM) -> Pruner:
    """Weights that are drawn to sparse ones."""
    return pruners.admm(
        settings.final_sparsity,
        frequency=own.every or _epoch(info),
        structure=own.structure,
        prunable=PRUNABLE[own.prunable],
        rho=own.rho,
        rho_growth=own.rho_growth,
        rho_max=own.rho_max,
        dual_every=own.dual_every,
    )


def robust_admm(settings: Settings, info: RunInfo, own: options.RobustADMM) -> Pruner:
    """The same with other numbers."""
    given: dict[str, Any] = {"structure": own.structure, "prunable": PRUNABLE[own.prunable]}
    return pruners.robust_admm(settings.final_sparsity, frequency=own.every or _epoch(info), **given)


def _flying(info: RunInfo, own: options.FlyingBird) -> dict[str, Any]:
    def steps(told: int | None, published: int) -> int:
        return told or max(1, round(info.num_steps * published / PUBLISHED_STEPS))

    given: dict[str, Any] = {"num_steps": info.num_steps, "growth": own.growth, "drop": own.drop, "final_drop": own.final_drop}
    when = {"frequency": steps(own.every, 900), "later_frequency": steps(own.later_every, 1200)}
    return given | when | {"prunable": PRUNABLE[own.prunable]}


def flying_bird(settings: Settings, info: RunInfo, own: options.FlyingBird) -> Pruner:
    """Masks that drop and grow."""
    return pruners.flying_bird(settings.final_sparsity, **_flying(info, own))


def flying_bird_plus(settings: Settings, info: RunInfo, own: options.FlyingBirdPlus) -> Pruner:
    """Masks that drop and grow as validation says."""
    begin = settings.validations // 2 if own.begin_validation is None else own.begin_validation
    return pruners.flying_bird_plus(settings.final_sparsity, begin_validation=begin, **_flying(info, own))


def twin_rep(settings: Settings, info: RunInfo, own: options.TwinRep) -> Pruner:
    """Products of two factors."""
    begin = min(round(own.cut * info.num_steps), max(0, info.num_steps - 1))
    given: dict[str, Any] = {"structure": own.structure, "initial": own.initial, "prunable": PRUNABLE[own.prunable]}
    return pruners.twin_rep(settings.final_sparsity, begin_step=begin, **given)


def robust_bird(settings: Settings, info: RunInfo, own: options.RobustBird) -> Pruner:
    """Masks that are drawn early."""
    given: dict[str, Any] = {"tolerance": own.tolerance, "prunable": PRUNABLE[own.prunable]}
    return pruners.robust_bird(settings.final_sparsity, frequency=_epoch(info), **given)


# Losses.


def mix(settings: Settings, info: RunInfo, own: options.Mix) -> Loss:
    """Part clean, part adversarial."""
    return losses.mix(adversarial_weight=own.adversarial_weight, label_smoothing=own.label_smoothing)


def madry(settings: Settings, info: RunInfo, own: options.Smoothed) -> Loss:
    """Adversarial alone."""
    return losses.madry(label_smoothing=own.label_smoothing)


def trades(settings: Settings, info: RunInfo, own: options.Divergence) -> Loss:
    """TRADES."""
    return losses.trades(beta=own.beta, label_smoothing=own.label_smoothing)


def mart(settings: Settings, info: RunInfo, own: options.Divergence) -> Loss:
    """MART."""
    return losses.mart(beta=own.beta, label_smoothing=own.label_smoothing)


def mma_loss(settings: Settings, info: RunInfo, own: options.Smoothed) -> Loss:
    """MMA's mix."""
    return losses.mma(label_smoothing=own.label_smoothing)


def clean(settings: Settings, info: RunInfo, own: options.Smoothed) -> Loss:
    """Clean alone."""
    return losses.clean(label_smoothing=own.label_smoothing)


def distill(settings: Settings, info: RunInfo, own: options.Distill) -> Loss:
    """The predictions of a frozen network."""
    return losses.distill(info.apply, alpha=own.alpha, temperature=own.temperature, teacher=_teacher(info, own))


def distill_hsic(settings: Settings, info: RunInfo, own: options.DistillHSIC) -> Loss:
    """The same with an information bottleneck."""
    given: dict[str, Any] = {"lambda_x": own.lambda_x, "lambda_y": own.lambda_y, "sigma": own.sigma, "epsilon": own.regulariser}
    about: dict[str, Any] = {"alpha": own.alpha, "temperature": own.temperature}
    return losses.distill_hsic(info.apply, teacher=_teacher(info, own), **about, **given)


def _teacher(info: RunInfo, own: options.Distill) -> str:
    if own.teacher != "auto":
        return own.teacher
    return PRETRAIN if PRETRAIN in info.networks else START
