"""The blind budget: estimate each example's margin, cut, scale. Nobody prescribes epsilon."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks import bap_deepfool
from bap_jax.attacks._inputs import AnyRadius, check_float32
from bap_jax.budgets._staged import staged
from bap_jax.budgets.cutoff import (
    Cutoff,
    RunningMean,
    check_cutoff,
    cutoff_scale_epsilon,
    cutoff_scale_perturbation,
    cutoff_value,
    parse_wrong,
)
from bap_jax.budgets.margin import Halving, Way, margin_search
from bap_jax.budgets.none import targets_of
from bap_jax.budgets.uniform import BudgetAttack
from bap_jax.budgets.way import ball_way, straight_end
from bap_jax.errors import SettingError
from bap_jax.inputs import require_radius
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.per_example import expand
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Adversarial, Array, Batch, Bounds, Budget, Gather, LogitsFn, Norm, RunInfo

PathName = Literal["ball", "ray"]
Over = Literal["all", "right"]


class Searched(NamedTuple):
    """What a search found: ``perturbation`` [B, ...], the smallest that misclassifies each example, and whether it does,
    ``found`` [B] bool. ``left`` [B] bool: the image itself is misclassified and the search left it there, at a margin of 0; its
    ``perturbation`` is the whole way that would have been searched.
    """

    perturbation: Array
    found: Array
    left: Array

    def norms(self, norm: Norm, epsilon_max: Array) -> Array:
        """[B] n_i, the margins: 0 of what was left, ``epsilon_max`` where nothing was found."""
        return jnp.where(self.left, 0.0, jnp.where(self.found, per_example_norm(self.perturbation, norm), epsilon_max))


class Search(Protocol):
    """An unrestricted search: the perturbation that just suffices to misclassify each example, see :class:`Searched`."""

    def __call__(self, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon_max: Array) -> Searched: ...


class CutoffScaleState(NamedTuple):
    """What the budget carries through training. ``scale``, ``epsilon_max`` and ``wrong`` are leaves, so that a sweep may batch
    them.
    """

    scale: Array  # float32 scalar, rho
    epsilon_max: Array  # float32 scalar, radius of the unrestricted search
    cutoff: Array  # float32 scalar, the radius c of the last batch
    running: RunningMean
    wrong: Array  # float32 scalar, the share of rho * c that an example gets which is misclassified already


def pgd_search(
    *,
    norm: Norm = "linf",
    num_steps: int = 1,
    num_bisections: int = 6,
    path: PathName = "ball",
    halving: Halving = "log",
    grid: int | None = None,
    bounds: Bounds = Bounds(),
) -> Search:
    """A few PGD steps at ``epsilon_max`` from the image itself, then a forward-only search along the way (:func:`margin_search`).

    ``path="ball"`` goes through the balls of all radii (:func:`bap_jax.budgets.way.ball_way`); ``"ray"`` straight to where the
    steps ended, inside the box. On the ray of L-infinity every feature has a pace of its own, the distance of its wall, so that
    the norm of the crossing is that of the feature farthest from its wall: on images with many values between 0 and 1 twice to
    four times the distance.

    Args:
      norm: of the ball of radius ``epsilon_max``.
      num_steps: PGD steps of size ``2.5 * epsilon_max / num_steps``; one or two suffice.
      path: ``"ball"`` or ``"ray"``.
      num_bisections, halving, grid: see :func:`bap_jax.budgets.margin.margin_search`; ``"log"`` tells margins from
        ``epsilon_max / 512`` on.
      bounds: the box of the images.

    Returns:
      A :class:`Search` that leaves an image that is misclassified already.

    Raises:
      SettingError: an unknown path; when called, what :func:`bap_jax.attacks.pgd` and
        :func:`bap_jax.budgets.margin.margin_search` refuse.

    Example:
      >>> import jax.numpy as jnp
      >>> logits_fn = lambda x: jnp.concatenate([x, 0.6 - x], axis=-1)  # class 0 above 0.3
      >>> images, labels = jnp.array([[0.5], [0.1]]), jnp.array([0, 0])
      >>> searched = pgd_search(num_bisections=10)(logits_fn, None, images, labels, jnp.float32(1.0))
      >>> round(abs(float(searched.perturbation[0, 0])), 2), searched.found.tolist(), searched.left.tolist()
      (0.2, [True, True], [False, True])
    """
    if path not in get_args(PathName):
        raise SettingError("path", path, "'ball' or 'ray'")

    def search(logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon_max: Array) -> Searched:
        way: Array | Way
        if path == "ray":
            far = straight_end(logits_fn, images, labels, epsilon_max, norm=norm, num_steps=num_steps, bounds=bounds)
            way = far - images
        else:
            way = ball_way(logits_fn, images, labels, epsilon_max, norm=norm, num_steps=num_steps, bounds=bounds)
        margin = margin_search(logits_fn, images, labels, way, num_bisections=num_bisections, halving=halving, grid=grid)
        reached = jnp.where(margin.wrong, 1.0, margin.fraction)  # all the way where there is no margin to find
        perturbation = way(reached) - images if callable(way) else way * expand(reached, images)
        return Searched(perturbation, margin.found, margin.wrong)

    return search


def deepfool_search(*, num_steps: int = 5, num_candidates: int = 10, bounds: Bounds = Bounds()) -> Search:
    """DeepFool-L2 as the authors use it; its end point is taken as it is, whether it flipped the prediction or not.

    The reference class is the model's own prediction, so an already misclassified example is pushed on, away from its wrong
    class.

    Args:
      num_steps, num_candidates: iterations, and how many of the largest logits are candidates.
      bounds: the box of the images.

    Returns:
      A :class:`Search` that always says it found and leaves no image; ``epsilon_max`` does not restrict it.

    Raises:
      SettingError: when called, what :func:`bap_jax.attacks.deepfool` refuses.

    References:
      Xie et al., Blind adversarial pruning, 2020; public repository Lixin-Qian/BAP.
    """

    def search(logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon_max: Array) -> Searched:
        result = bap_deepfool(logits_fn, keys, images, labels, num_steps=num_steps, num_candidates=num_candidates, bounds=bounds)
        return Searched(result.images - images, jnp.ones(labels.shape, bool), jnp.zeros(labels.shape, bool))

    return search


def cutoff_scale(
    search: Search,
    attack: BudgetAttack | None,
    *,
    cutoff: Cutoff = Cutoff("mean"),
    scale: float = 1.2,
    wrong: str = "cutoff",
    over: Over = "all",
    norm: Norm = "linf",
    epsilon_max: float | None = None,
    bounds: Bounds = Bounds(),
) -> Budget:
    """The cutoff-scale budget: ``epsilon_i = scale * min(n_i, c)``, n_i the norm of the smallest perturbation that ``search``
    found.

    An example that ``search`` could not fool counts with ``n_i = epsilon_max``. One that is misclassified already and that the
    search left (:class:`Searched`; DeepFool leaves none) counts with ``n_i = 0``, and what it gets is ``wrong``'s to say. The
    training example is a fresh ``attack`` at ``epsilon_i``, or, with ``attack=None``, the searched perturbation itself, cut and
    scaled as the authors do (:func:`bap_jax.budgets.cutoff.cutoff_scale_perturbation`).

    Args:
      search: see :class:`Search`; a PGD search has to be in ``norm``.
      attack: a :class:`bap_jax.budgets.uniform.BudgetAttack` in ``norm``, or None to rescale.
      cutoff: where norms are cut, see :class:`bap_jax.budgets.cutoff.Cutoff`. The batch is the global batch.
      scale: rho, above 0.
      wrong: what an example gets that was left: ``"cutoff"``, rho * c; ``"zero"``, nothing: it is trained on as it is;
        ``"floor:FRACTION"``, that fraction of rho * c. Where nothing is cut (``cutoff`` ``off``) there is no c: nothing.
      over: whose norms the cutoff is a mean or a quantile of: of ``"all"`` examples, or of the ``"right"`` ones, which were not
        left.
      norm: of n_i, c and epsilon_i: ``"linf"``, ``"l2"``, ``"l1"`` or ``"rms"``.
      epsilon_max: radius of the unrestricted search, in ``norm``. By default the width of the box for L-infinity and RMS: the
        search is not restricted at all. L2 and L1, where that radius depends on the size of the image, need one.
      bounds: the box of the images.

    Raises:
      SettingError: an unknown norm, cutoff, ``wrong`` or ``over``, a scale or epsilon_max that is not positive or not given where
        it has to be, a radius wider than the box, a floor where nothing is cut.

    Example:
      >>> state = cutoff_scale(pgd_search(), None, scale=1.0).init(None)
      >>> float(state.epsilon_max), float(state.cutoff), float(state.wrong)
      (1.0, 0.0, 1.0)

    References:
      Xie et al., Blind adversarial pruning, 2020, arXiv 2004.05913; Blind adversarial training, arXiv 2004.05914. The fresh
      attack, the margin search, what wrong examples get and the cutoffs other than batch mean and constant are ours.
    """
    check_cutoff(cutoff)
    share = parse_wrong(wrong)
    if cutoff.kind == "off" and wrong.startswith("floor"):
        raise SettingError("wrong", wrong, "cutoff or zero with cutoff off, which leaves nothing to take a fraction of")
    if over not in get_args(Over):
        raise SettingError("over", over, "'all' or 'right'")
    if norm not in ("linf", "l2", "l1", "rms"):
        raise SettingError("norm", norm, "'linf', 'l2', 'l1' or 'rms'")
    if epsilon_max is None:
        if norm not in ("linf", "rms"):
            raise SettingError("epsilon_max", None, f"a radius, with norm = {norm!r}")
        epsilon_max = float(np.max(np.asarray(bounds.upper) - np.asarray(bounds.lower)))
    for name, value in (("scale", scale), ("epsilon_max", epsilon_max)):
        if not 0 < value < float("inf"):
            raise SettingError(name, value, "a finite number above 0")
    require_radius(epsilon_max, norm, bounds, name="epsilon_max")
    if cutoff.kind == "constant":
        require_radius(cutoff.value, norm, bounds, name="cutoff")

    def init(info: RunInfo) -> CutoffScaleState:
        known = jnp.float32(scale), jnp.float32(epsilon_max), jnp.float32(0.0)
        return CutoffScaleState(*known, RunningMean.empty(), jnp.float32(share))

    def measure(keys: Array, logits_fn: LogitsFn, batch: Batch, state: CutoffScaleState, *, step: Array) -> tuple:
        check_float32(batch.images)
        search_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 0)
        searched = search(logits_fn, search_keys, batch.images, batch.labels, state.epsilon_max)
        norms = searched.norms(norm, state.epsilon_max)
        return norms, searched.left, searched.perturbation if attack is None else ()

    def agree(measured: tuple, batch: Batch, state: CutoffScaleState, *, gather: Gather) -> CutoffScaleState:
        norms, left, _ = measured
        heard = jnp.where(left, 0.0, batch.weight) if over == "right" else batch.weight
        radius, running = cutoff_value(gather(norms), gather(heard), cutoff, state.running)
        return state._replace(cutoff=radius, running=running)

    def give(keys: Array, logits_fn: LogitsFn, batch: Batch, measured: tuple, state: CutoffScaleState) -> Adversarial:
        images, labels, radius = batch.images, batch.labels, state.cutoff
        norms, left, perturbation = measured
        scale_if_left = 0.0 if cutoff.kind == "off" else state.wrong * state.scale
        radius_if_left = 0.0 if cutoff.kind == "off" else scale_if_left * radius  # 0 times infinity is not 0
        epsilon = jnp.where(left, radius_if_left, cutoff_scale_epsilon(norms, radius, state.scale))
        if attack is None:
            scales = jnp.where(left, scale_if_left, state.scale)
            moved = images + cutoff_scale_perturbation(perturbation, radius, scales, norm=norm)
            adversarial = clip_to_bounds(moved, bounds)
        else:
            attack_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 1)
            adversarial = attack(AnyRadius(logits_fn), attack_keys, images, labels, epsilon=epsilon).images
        return Adversarial(adversarial, epsilon, targets_of(logits_fn, images, labels), batch.weight)

    return staged(init, measure, agree, give)
