"""HO-FMN: FMN with its loss, optimiser, step sizes and schedule chosen on the network at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from bap_jax.attacks._inputs import admit, check_positive, check_steps
from bap_jax.attacks._nearest import cosine
from bap_jax.attacks.fmn import FmnNorm, fmn
from bap_jax.attacks.pgd import Objective
from bap_jax.errors import SettingError
from bap_jax.inputs import concrete
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.objectives import cross_entropy, dlr, margin_loss, successful
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn

_OBJECTIVES: tuple[tuple[str, Objective], ...] = (("margin", margin_loss), ("dlr", dlr), ("cross_entropy", cross_entropy))
_OPTIMIZERS = ("sgd", "adam", "adamax")
_SCHEDULES = ("cosine", "plateau", "constant")
_TOLERANCE = 1e-4  # how much of the best loss an improvement has to be, for a plateau


class FmnConfiguration(NamedTuple):
    """One way to run FMN. Hashable, and equal where the settings are; its numbers may be traced, its names may not."""

    objective: Literal["margin", "dlr", "cross_entropy"] = "margin"
    optimizer: Literal["sgd", "adam", "adamax"] = "sgd"
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    step_size: float = 1.0  # the first one, in input units
    sign: bool = False  # the optimiser gets the sign of the gradient, instead of the gradient over its L2 norm
    momentum: float = 0.0  # of SGD; β₁ of Adam and AdaMax
    second_momentum: float = 0.999  # β₂ of Adam and AdaMax
    weight_decay: float = 0.0  # this times δ is added to what the optimiser gets
    factor: float = 0.5  # what a plateau multiplies the step size with
    patience: int = 5  # steps without progress that a plateau takes

    def settings(self, num_steps: int) -> dict[str, Any]:
        """The keyword arguments that make :func:`bap_jax.attacks.fmn.fmn` run this configuration for ``num_steps``."""
        _check_configuration(self)
        check_steps("num_steps", num_steps)
        row = jax.tree.map(lambda leaf: leaf[0], _rows([self], [self.objective]))
        return _settings(row, [self.objective], num_steps)


def default_configurations(norm: FmnNorm) -> tuple[FmnConfiguration, ...]:
    """A small grid: every loss with SGD (with and without momentum), Adam and AdaMax, and the three schedules where they matter.

    L∞ takes the signs of gradients beside their L2-normalised form, with smaller steps. FMN's own setting comes first.

    Example:
      >>> len(default_configurations("l2")), default_configurations("l2")[0] == FmnConfiguration()
      (15, True)
    """
    losses: tuple[Literal["margin", "dlr", "cross_entropy"], ...] = ("margin", "dlr", "cross_entropy")
    plain = [
        entry for loss in losses for entry in (FmnConfiguration(loss), FmnConfiguration(loss, schedule="plateau", step_size=0.3))
    ]
    heavy = [FmnConfiguration(loss, "sgd", "cosine", 0.1, momentum=0.9) for loss in losses]
    scale = 0.1 if norm == "linf" else 0.3
    adaptive = [FmnConfiguration(loss, name, "cosine", scale, momentum=0.9) for loss in losses for name in ("adam", "adamax")]
    signs = [FmnConfiguration(loss, "sgd", "cosine", step, sign=True) for loss in losses for step in (0.03, 0.1)]
    return (*plain, *heavy, *adaptive, *(signs if norm == "linf" else ()))


def ho_fmn(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    norm: FmnNorm = "linf",
    bounds: Bounds = Bounds(),
    configurations: Sequence[FmnConfiguration] | None = None,
    num_steps: int = 200,
    num_trial_steps: int = 100,
    num_trial_examples: int | None = None,
    targeted: bool = False,
) -> AttackResult:
    """FMN as the configuration runs it that has the smallest median distance in a short trial on the same batch.

    The winner is chosen for the batch as a whole, so here, unlike in every other attack, a row's result depends on its
    neighbours. Where that must not be, or to tune once for many batches, rank on one batch and attack with the winner::

        medians = rank_configurations(network, None, tuning_images, tuning_labels, norm="linf", configurations=grid)
        fmn(network, None, images, labels, norm="linf", num_steps=200, **grid[int(medians.argmin())].settings(200))

    However many configurations there are, two loops are compiled: that of the trials and that of the attack.

    What differs from the paper: it fixes the loss, the optimiser and the schedule, lets Bayesian optimisation choose their
    numbers (step size from 8/255 to 10, momentum, weight decay, …) in 32 trials, repeats that for every combination and keeps
    the best; here all of them are entries of one given list, each tried once. As in the authors' code ε has no limit but the box
    until something adversarial was met, and cosines end at 0.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; K ≥ 3 where a configuration has the loss ``dlr``.
      keys: ignored, nothing here is random; it stands here so that attacks are called alike.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      norm: ``linf``, ``l2``, ``l1`` or ``l0``.
      bounds: the box.
      configurations: what is tried; by default :func:`default_configurations` of the norm.
      num_steps: steps of the attack.
      num_trial_steps: steps of every trial.
      num_trial_examples: how many rows, from the first, are tried on; by default all.
      targeted: look for the wanted class instead of for any other.

    Returns:
      AttackResult, as from :func:`bap_jax.attacks.fmn.fmn` with the winner.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0, -9.0], [4.0, 0.0, -9.0]])
      >>> images, labels = jnp.array([[0.5, 0.5]]), jnp.array([0])
      >>> result = ho_fmn(linear, None, images, labels, bounds=Bounds(-1.0, 1.0), num_steps=50, num_trial_steps=20)
      >>> jnp.max(jnp.abs(result.images - 0.5)).round(2), result.found  # the plane is 3.5 / 7 away
      (Array(0.5, dtype=float32), Array([ True], dtype=bool))

    References:
      Mura et al. 2024, "HO-FMN: Hyperparameter Optimization for Fast Minimum-Norm Attacks", arXiv 2407.08806; search space and
      plateau rule as in the repository pralab/HO-FMN.
    """
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    grid = _check(norm, configurations, num_steps, num_trial_steps)
    count = images.shape[0] if num_trial_examples is None else num_trial_examples
    check_steps("num_trial_examples", count)
    medians = rank_configurations(
        logits_fn,
        keys,
        images[:count],
        labels[:count],
        norm=norm,
        bounds=bounds,
        configurations=grid,
        num_steps=num_trial_steps,
        targeted=targeted,
    )
    rows = _rows(grid, _in_use(grid))
    settings = _settings(jax.tree.map(lambda leaf: leaf[jnp.argmin(medians)], rows), _in_use(grid), num_steps)
    result = fmn(logits_fn, keys, images, labels, norm=norm, bounds=bounds, num_steps=num_steps, targeted=targeted, **settings)
    return give(*result)


def rank_configurations(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    norm: FmnNorm = "linf",
    bounds: Bounds = Bounds(),
    configurations: Sequence[FmnConfiguration] | None = None,
    num_steps: int = 100,
    targeted: bool = False,
) -> Array:
    """The median distance that each configuration of FMN finds; the smallest is the best.

    Examples that are adversarial already are left out, and those for which nothing was found are infinitely far. Of an even
    number of distances the smaller one in the middle is taken.

    Args:
      logits_fn: images [B, ...] to logits [B, K].
      keys: ignored.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers.
      norm: the norm of the distances.
      bounds: the box.
      configurations: C of them; by default :func:`default_configurations` of the norm.
      num_steps: steps that each gets.
      targeted: whether labels are the wanted classes.

    Returns:
      [C] distances in the norm's units; infinite where half of the examples were not fooled, or all are adversarial already.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0]])
      >>> grid = (FmnConfiguration(step_size=1e-6), FmnConfiguration())  # steps too small to get anywhere, and sensible ones
      >>> image, box = jnp.array([[0.5, 0.5]]), Bounds(-1.0, 1.0)
      >>> rank_configurations(linear, None, image, jnp.array([0]), bounds=box, configurations=grid).round(2)
      Array([inf, 0.5], dtype=float32)

    References:
      As :func:`ho_fmn`.
    """
    logits_fn, images, labels, _ = admit(logits_fn, images, labels, bounds)
    grid = _check(norm, configurations, num_steps, 1)
    clean = logits_fn(images)
    _check_classes(grid, clean.shape[1])
    wrong = successful(clean, labels, targeted=targeted)

    def trial(row: _Row) -> Array:
        settings = _settings(row, _in_use(grid), num_steps)
        result = fmn(
            logits_fn, keys, images, labels, norm=norm, bounds=bounds, num_steps=num_steps, targeted=targeted, **settings
        )
        distance = per_example_norm(result.images - images, norm)
        ordered = jnp.sort(jnp.where(result.found & ~wrong, distance, jnp.inf))
        return ordered[jnp.maximum(jnp.sum(~wrong) - 1, 0) // 2]

    return jax.lax.map(trial, _rows(grid, _in_use(grid)))


class _Row(NamedTuple):
    """A configuration as numbers, so that one program can run any of them."""

    objective: Array  # its position among the objectives in use; likewise the next two
    optimizer: Array
    schedule: Array
    step_size: Array
    sign: Array
    momentum: Array
    second_momentum: Array
    weight_decay: Array
    factor: Array
    patience: Array


class _State(NamedTuple):
    adam: optax.ScaleByAdamState  # SGD keeps its trace where Adam and AdaMax keep the mean gradient
    best: Array  # the smallest loss so far
    waited: Array  # steps since then
    scale: Array  # what plateaus have made of the step size


def _rows(configurations: Sequence[FmnConfiguration], objectives: Sequence[str]) -> _Row:
    """All configurations with the leaves' first dimension C."""
    names = (objectives, _OPTIMIZERS, _SCHEDULES)
    numbers = [(*(list(x).index(y) for x, y in zip(names, entry[:3], strict=True)), *entry[3:]) for entry in configurations]
    return _Row._make(jnp.asarray(column) for column in zip(*numbers, strict=True))


def _in_use(configurations: Sequence[FmnConfiguration]) -> list[str]:
    return [name for name, _ in _OBJECTIVES if name in {entry.objective for entry in configurations}]


def _settings(row: _Row, objectives: Sequence[str], num_steps: int) -> dict[str, Any]:
    losses = [dict(_OBJECTIVES)[name] for name in objectives]

    def objective(logits: Array, labels: Array) -> Array:
        return losses[0](logits, labels) if len(losses) == 1 else jax.lax.switch(row.objective, losses, logits, labels)

    def schedule(step: Array) -> Array:
        falling = row.schedule == _SCHEDULES.index("cosine")
        return row.step_size * jnp.where(falling, cosine(step, num_steps, 1.0, 0.0), 1.0)

    optimizer = _optimizer(row)
    return {"objective": objective, "optimizer": optimizer, "step_size_schedule": schedule, "linear_estimate": False}


def _optimizer(row: _Row) -> optax.GradientTransformationExtraArgs:
    def sgd(gradient: Array, state: optax.ScaleByAdamState) -> tuple[Array, optax.ScaleByAdamState]:
        update, trace = optax.trace(row.momentum).update(gradient, optax.TraceState(state.mu))
        return update, state._replace(mu=trace.trace)

    adam = optax.scale_by_adam(row.momentum, row.second_momentum)
    rules = [sgd, adam.update, optax.scale_by_adamax(row.momentum, row.second_momentum).update]

    def init(params: Array) -> _State:
        return _State(adam.init(params), jnp.full_like(params, jnp.inf, shape=()), jnp.int32(0), jnp.ones_like(params, shape=()))

    def update(gradient: Array, state: _State, params: Array | None = None, *, value: Array, **_: Any) -> tuple[Array, _State]:
        shown = jnp.where(row.sign, jnp.sign(gradient), gradient)
        if params is not None:
            shown = shown + row.weight_decay.astype(shown.dtype) * params
        step, adam_state = jax.lax.switch(row.optimizer, rules, shown, state.adam)
        better = value < state.best - _TOLERANCE * jnp.where(jnp.isfinite(state.best), jnp.abs(state.best), 0)
        waited = jnp.where(better, 0, state.waited + 1)
        expired = (waited > row.patience) & (row.schedule == _SCHEDULES.index("plateau"))
        following = _State(
            adam_state,
            jnp.where(better, value, state.best),
            jnp.where(expired, 0, waited),
            jnp.where(expired, state.scale * row.factor, state.scale),
        )
        return state.scale * step, following

    return optax.GradientTransformationExtraArgs(init, update)


def _check(
    norm: FmnNorm,
    configurations: Sequence[FmnConfiguration] | None,
    num_steps: int,
    num_trial_steps: int,
) -> tuple[FmnConfiguration, ...]:
    check_steps("num_steps", num_steps)
    check_steps("num_trial_steps", num_trial_steps)
    grid = tuple(default_configurations(norm) if configurations is None else configurations)
    if not grid:
        raise SettingError("configurations", grid, "at least one")
    for entry in grid:
        _check_configuration(entry)
    return grid


def _check_classes(grid: Sequence[FmnConfiguration], num_classes: int) -> None:
    if num_classes < 3 and "dlr" in {entry.objective for entry in grid}:
        others = "configurations=tuple(c for c in default_configurations(norm) if c.objective != 'dlr')"
        raise SettingError("configurations", "some with the loss dlr", f"none of them with {num_classes} classes: {others}")


def _check_configuration(entry: FmnConfiguration) -> None:
    objectives = tuple(name for name, _ in _OBJECTIVES)
    for setting, allowed in (("objective", objectives), ("optimizer", _OPTIMIZERS), ("schedule", _SCHEDULES)):
        if getattr(entry, setting) not in allowed:
            raise SettingError(setting, getattr(entry, setting), "one of " + ", ".join(allowed))
    check_positive("step_size", entry.step_size)
    entry = FmnConfiguration(
        *(cast(Any, setting if concrete(setting) is not None else 0.5) for setting in entry)
    )  # a traced one fits
    for setting in ("momentum", "second_momentum"):
        if not 0 <= getattr(entry, setting) < 1:
            raise SettingError(setting, getattr(entry, setting), "a number in [0, 1)")
    if not entry.weight_decay >= 0:
        raise SettingError("weight_decay", entry.weight_decay, "a number ≥ 0")
    if not 0 < entry.factor < 1:
        raise SettingError("factor", entry.factor, "a number in (0, 1)")
    if entry.patience < 0:
        raise SettingError("patience", entry.patience, "an integer ≥ 0")
