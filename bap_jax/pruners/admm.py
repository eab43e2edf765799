"""Pruning by the alternating direction method of multipliers: weights are drawn towards a sparse copy of themselves, then cut."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import Prunable, apply_masks, convolutions, kernels
from bap_jax.mathematics.structured import Structure, structured_masks
from bap_jax.pruners._given import bound_of, bounded, within
from bap_jax.types import Array, Params, Pruner, PyTree


class ADMMState(NamedTuple):
    """The split variables. Trees have the structure of the weights, a scalar 0 where a leaf is not prunable."""

    masks: PyTree  # of Π(W): what the cut network keeps; until the end the other weights are drawn to 0, not cut
    targets: PyTree  # Z, of the wanted sparsity
    duals: PyTree  # U, scaled dual variables
    rho: Array  # float32 scalar, the penalty's factor
    sparsity: Array  # float32 scalar, of the groups of each layer
    bound: PyTree  # of masks the network began with, or ()


def admm(
    sparsity: float,
    *,
    frequency: int,
    structure: Structure = "irregular",
    prunable: Prunable = convolutions,
    rho: float = 0.01,
    rho_growth: float = 1.35,
    rho_max: float = 1.0,
    dual_every: int = 3,
    refresh: bool = True,
) -> Pruner:
    """Minimises ``loss(W)`` with W sparse by splitting: ``loss(W) + ρ/2 Σ ‖W - Z + U‖²``, Z being sparse.

    Every ``frequency`` steps, an epoch, Z is brought up to date: to Π(W), U staying as it is. At each ``dual_every``-th of these
    ρ grows, ``Z ← Π(W + U)`` and ``U ← U + W - Z``. The weights are dense all the while, and the masks after every step those of
    Π(W), to which ``finish`` cuts: what is evaluated is always the cut network.

    The defaults are PwoA's: all convolutions (stem and shortcuts too), no dense layer. Its learning rate within each cycle of
    three epochs, times 1, 0.1 and 0.01, is the optimiser's: :func:`admm_learning_rate`.

    Args:
      sparsity: of each layer (of its weights, columns or filters), in [0, 1].
      frequency: steps between two looks at Z; published: an epoch.
      structure: the projection Π, see :func:`bap_jax.mathematics.structured.structured_masks`.
      prunable: ``(path, leaf) -> bool``.
      rho: ρ before its first growth, > 0.
      rho_growth: its factor at each dual update, at least 1.
      rho_max: where it stops growing, may be infinite.
      dual_every: how many looks make a dual update.
      refresh: whether Z ← Π(W) between dual updates, as the published code does at the start of every epoch; without it Z changes
        at dual updates only, the textbook's form.

    Returns:
      A :class:`bap_jax.types.Pruner` whose state is an :class:`ADMMState`; ``rho`` and ``sparsity`` may differ between copies
      under ``jax.vmap``.

    Raises:
      SettingError: a setting outside its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = admm(0.5, frequency=10, prunable=lambda path, leaf: True)
      >>> weights, state = pruner.init(jax.random.key(0), {"w": jnp.array([[3.0, -1.0]])})
      >>> round(float(pruner.penalty(0, weights, state)), 4)  # 0.01 / 2 * (-1)^2
      0.005
      >>> pruner.finish(weights, state)[0]["w"].tolist()
      [[3.0, 0.0]]

    References:
      Jian et al. 2022, "Pruning Adversarially Robust Neural Networks without Adversarial Examples" (neu-spiral/PwoA); Zhang et
      al. 2018, "A Systematic DNN Weight Pruning Framework Using Alternating Direction Method of Multipliers".
    """
    if not 0 <= sparsity <= 1:
        raise SettingError("sparsity", sparsity, "a number in [0, 1]")
    for name, count in (("frequency", frequency), ("dual_every", dual_every)):
        if not isinstance(count, int) or count < 1:
            raise SettingError(name, count, "an integer of at least 1")
    if not 0 < rho < float("inf"):
        raise SettingError("rho", rho, "a positive number")
    if not 1 <= rho_growth < float("inf"):
        raise SettingError("rho_growth", rho_growth, "a number of at least 1")
    if not rho_max >= rho:
        raise SettingError("rho_max", rho_max, f"a number of at least rho = {rho}")

    def project_on(params: Params, sparsity: Array, bound: PyTree) -> PyTree:
        return structured_masks(params, sparsity, structure=structure, prunable=prunable, within=within(bound))

    def only_prunable(params: Params, masks: PyTree) -> Params:
        return jax.tree.map(lambda leaf, mask: leaf if mask.ndim else jnp.zeros((), leaf.dtype), params, masks)

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[Params, ADMMState]:
        bound = bound_of(params, masks, prunable)
        params = bounded(params, bound)
        masks = project_on(params, jnp.float32(sparsity), bound)
        targets = only_prunable(apply_masks(params, masks), masks)
        duals = jax.tree.map(jnp.zeros_like, targets)
        return params, ADMMState(masks, targets, duals, jnp.float32(rho), jnp.float32(sparsity), bound)

    def penalty(step: Array, params: Params, state: ADMMState) -> Array:
        own = only_prunable(params, state.masks)
        gaps = jax.tree.map(lambda w, z, u: jnp.sum((w - z + u).astype(jnp.float32) ** 2), own, state.targets, state.duals)
        return 0.5 * state.rho * sum(jax.tree.leaves(gaps))

    def update(key: Array, step: Array, params: Params, dense_grads: Params, state: ADMMState) -> tuple[Params, ADMMState]:
        state = state._replace(masks=project_on(params, state.sparsity, state.bound))
        own = only_prunable(params, state.masks)
        looks = (step + 1) // frequency

        def refreshed() -> ADMMState:
            return state._replace(targets=apply_masks(own, state.masks))

        def dual_step() -> ADMMState:
            shifted = jax.tree.map(lambda w, u, mask: w + u if mask.ndim else w, params, state.duals, state.masks)
            masks = project_on(shifted, state.sparsity, state.bound)
            targets = apply_masks(only_prunable(shifted, masks), masks)
            duals = jax.tree.map(lambda u, w, z: u + w - z, state.duals, own, targets)
            return state._replace(targets=targets, duals=duals, rho=jnp.minimum(state.rho * rho_growth, rho_max))

        def look() -> ADMMState:
            return jax.lax.cond(looks % dual_every == 0, dual_step, refreshed if refresh else lambda: state)

        return params, jax.lax.cond((step + 1) % frequency == 0, look, lambda: state)

    return Pruner(
        init=init,
        effective=lambda params, state: params,
        penalty=penalty,
        due=lambda step, state: jnp.bool_(True),
        update=update,
        project=lambda params, state: bounded(params, state.bound),
        finish=lambda params, state: (apply_masks(params, state.masks), state.masks),
    )


def robust_admm(sparsity: float, *, frequency: int, structure: Structure = "irregular", prunable: Prunable = kernels) -> Pruner:
    """:func:`admm` as Robust-ADMM sets it: ρ from 0.001, times 1.3 at every update and uncapped; Z changes at updates only.

    It minimises the cross-entropy of adversarial examples; the network is then cut and adversarially retrained. What is not known
    of the original: how many epochs lie between two updates (ours: three of ``frequency`` steps, as in PwoA's code, which
    descends from it), and which layers its published networks leave whole (ours: none).

    Args:
      sparsity: of each layer, in [0, 1].
      frequency: steps of an epoch.
      structure: see :func:`admm`.
      prunable: ``(path, leaf) -> bool``.

    Returns:
      A :class:`bap_jax.types.Pruner`, see :func:`admm`.

    Raises:
      SettingError: a setting outside its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> _, state = robust_admm(0.5, frequency=10).init(jax.random.key(0), {"w": jnp.ones((2, 2))})
      >>> round(float(state.rho), 4)
      0.001

    References:
      Ye et al. 2019, "Adversarial Robustness vs. Model Compression, or Both?".
    """
    return admm(
        sparsity,
        frequency=frequency,
        structure=structure,
        prunable=prunable,
        rho=0.001,
        rho_growth=1.3,
        rho_max=float("inf"),
        refresh=False,
    )


def admm_learning_rate(step: int | Array, *, frequency: int, dual_every: int = 3) -> Array:
    """The factor of the learning rate within each cycle between dual updates: 1, 0.1, 0.01 by thirds of the cycle.

    Args:
      step: training step, scalar, may be traced.
      frequency: steps of an epoch.
      dual_every: epochs of a cycle.

    Returns:
      float32 scalar.

    Example:
      >>> [round(float(admm_learning_rate(step, frequency=2)), 2) for step in range(8)]
      [1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 1.0, 1.0]

    References:
      Jian et al. 2022 (neu-spiral/PwoA).
    """
    epoch = (jnp.asarray(step, jnp.int32) // frequency) % dual_every
    return jnp.float32(0.1) ** (3 * epoch // dual_every)
