"""The blind budget: estimate each example's margin, cut, scale. Nobody prescribes epsilon."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks import bap_deepfool, pgd
from bap_jax.attacks._inputs import AnyRadius, check_float32
from bap_jax.budgets.cutoff import (
    Cutoff,
    RunningMean,
    check_cutoff,
    cutoff_scale_epsilon,
    cutoff_scale_perturbation,
    cutoff_value,
)
from bap_jax.budgets.margin import margin_search
from bap_jax.budgets.none import targets_of
from bap_jax.budgets.uniform import BudgetAttack
from bap_jax.errors import SettingError
from bap_jax.inputs import require_radius
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.mathematics.rows import expand
from bap_jax.types import Adversarial, Array, Batch, Bounds, Budget, Gather, LogitsFn, Norm


class Search(Protocol):
    """An unrestricted search: the perturbation that just suffices to misclassify each example, and whether it does.

    ``(logits_fn, keys, images, labels, epsilon_max) -> (perturbation [B, ...], found [B])``. A search
    says itself what it does with an image that is misclassified already.
    """

    def __call__(
        self, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon_max: Array
    ) -> tuple[Array, Array]: ...


class CutoffScaleState(NamedTuple):
    """What the budget carries through training. ``scale`` and ``epsilon_max`` are leaves, so that a sweep may batch them."""

    scale: Array  # float32 scalar, rho
    epsilon_max: Array  # float32 scalar, radius of the unrestricted search
    cutoff: Array  # float32 scalar, the radius c of the last batch
    running: RunningMean


def pgd_search(
    *, norm: Norm = "linf", num_steps: int = 1, num_bisections: int = 6, grid: int | None = None, bounds: Bounds = Bounds()
) -> Search:
    """A few PGD steps at ``epsilon_max`` from the image itself, then a forward-only search along the way (:func:`margin_search`).

    Args:
      norm: of the ball of radius ``epsilon_max``.
      num_steps: PGD steps of size ``2.5 * epsilon_max / num_steps``; one or two suffice.
      num_bisections, grid: see :func:`bap_jax.budgets.margin.margin_search`.
      bounds: the box of the images.

    Returns:
      A :class:`Search` whose perturbation is zero where the image itself is misclassified.

    Raises:
      SettingError: when called, what :func:`bap_jax.attacks.pgd` and :func:`bap_jax.budgets.margin.margin_search` refuse.

    >>> import jax.numpy as jnp
    >>> logits_fn = lambda x: jnp.concatenate([x, 0.6 - x], axis=-1)  # class 0 above 0.3
    >>> images, labels = jnp.array([[0.5], [0.1]]), jnp.array([0, 0])
    >>> perturbation, found = pgd_search(num_bisections=10)(logits_fn, None, images, labels, jnp.float32(1.0))
    >>> [round(abs(float(row[0])), 2) for row in perturbation], found.tolist()
    ([0.2, 0.0], [True, True])
    """

    def search(logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon_max: Array) -> tuple[Array, Array]:
        far = pgd(
            AnyRadius(logits_fn),
            None,
            images,
            labels,
            epsilon=epsilon_max,
            norm=norm,
            num_steps=num_steps,
            random_start=False,
            bounds=bounds,
        ).images
        margin = margin_search(logits_fn, images, labels, far - images, num_bisections=num_bisections, grid=grid)
        return (far - images) * expand(margin.fraction, images), margin.found

    return search


def deepfool_search(*, num_steps: int = 5, num_candidates: int = 10, bounds: Bounds = Bounds()) -> Search:
    """DeepFool-L2 as the authors use it; its end point is taken as it is, whether it flipped the prediction or not.

    The reference class is the model's own prediction, so an already misclassified example is pushed on, away from its wrong
    class.

    Args:
      num_steps, num_candidates: iterations, and how many of the largest logits are candidates.
      bounds: the box of the images.

    Returns:
      A :class:`Search` that always says it found; ``epsilon_max`` does not restrict it.

    Raises:
      SettingError: when called, what :func:`bap_jax.attacks.deepfool` refuses.

    References:
      Xie et al., Blind adversarial pruning, 2020; public repository Lixin-Qian/BAP.
    """

    def search(logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon_max: Array) -> tuple[Array, Array]:
        result = bap_deepfool(logits_fn, keys, images, labels, num_steps=num_steps, num_candidates=num_candidates, bounds=bounds)
        return result.images - images, jnp.ones(labels.shape, bool)

    return search


def cutoff_scale(
    search: Search,
    attack: BudgetAttack | None,
    *,
    cutoff: Cutoff = Cutoff("mean"),
    scale: float = 1.2,
    norm: Norm = "linf",
    epsilon_max: float | None = None,
    bounds: Bounds = Bounds(),
) -> Budget:
    """The cutoff-scale budget: ``epsilon_i = scale * min(n_i, c)``, n_i the norm of the smallest perturbation that ``search``
    found.

    An example that ``search`` could not fool counts with ``n_i = epsilon_max``; one that is already misclassified with 0 (under
    :func:`pgd_search`). The training example is a fresh ``attack`` at ``epsilon_i``, or, with ``attack=None``, the searched
    perturbation itself, cut and scaled as the authors do (:func:`bap_jax.budgets.cutoff.cutoff_scale_perturbation`).

    Args:
      search: see :class:`Search`; a PGD search has to be in ``norm``.
      attack: a :class:`bap_jax.budgets.uniform.BudgetAttack` in ``norm``, or None to rescale.
      cutoff: where norms are cut, see :class:`bap_jax.budgets.cutoff.Cutoff`. The batch is the global batch.
      scale: rho, above 0.
      norm: of n_i, c and epsilon_i: ``"linf"``, ``"l2"``, ``"l1"`` or ``"rms"``.
      epsilon_max: radius of the unrestricted search, in ``norm``. By default the width of the box for L-infinity and RMS: the
        search is not restricted at all. L2 and L1, where that radius depends on the size of the image, need one.
      bounds: the box of the images.

    Raises:
      SettingError: an unknown norm or cutoff, a scale or epsilon_max that is not positive or not given where it has to be, a
        radius wider than the box.

    >>> state = cutoff_scale(pgd_search(), None, scale=1.0).init(100)
    >>> float(state.epsilon_max), float(state.cutoff)
    (1.0, 0.0)

    References:
      Xie et al., Blind adversarial pruning, 2020, arXiv 2004.05913; Blind adversarial training, arXiv 2004.05914. The fresh
      attack, the margin search and the cutoffs other than batch mean and constant are ours.
    """
    check_cutoff(cutoff)
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

    def init(num_examples: int) -> CutoffScaleState:
        return CutoffScaleState(jnp.float32(scale), jnp.float32(epsilon_max), jnp.float32(0.0), RunningMean.empty())

    def perturb(keys: Array, logits_fn: LogitsFn, batch: Batch, state: CutoffScaleState, *, step: Array, gather: Gather):
        images, labels = batch.images, batch.labels
        check_float32(images)
        search_keys, attack_keys = (jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i) for i in range(2))
        smallest, found = search(logits_fn, search_keys, images, labels, state.epsilon_max)
        norms = jnp.where(found, per_example_norm(smallest, norm), state.epsilon_max)
        radius, running = cutoff_value(gather(norms), gather(batch.weight), cutoff, state.running)
        epsilon = cutoff_scale_epsilon(norms, radius, state.scale)
        if attack is None:
            moved = images + cutoff_scale_perturbation(smallest, radius, state.scale, norm=norm)
            adversarial = clip_to_bounds(moved, bounds)
        else:
            adversarial = attack(AnyRadius(logits_fn), attack_keys, images, labels, epsilon=epsilon).images
        targets = targets_of(logits_fn, images, labels)
        return Adversarial(adversarial, epsilon, targets, batch.weight), state._replace(cutoff=radius, running=running)

    return Budget(init, perturb)
