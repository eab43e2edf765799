"""Norms of perturbations, one number per example."""

from __future__ import annotations

import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.per_example import expand
from bap_jax.mathematics.top_k import among_largest
from bap_jax.types import NORMS, Array, Norm


def per_example_norm(delta: Array, norm: Norm, *, floor: float = 0.0) -> Array:
    """The norm of every example of a batch of perturbations.

    ``linf``: max |δ|; ``l2``: √Σδ²; ``l1``: Σ|δ|; ``l0``: the number of non-zero features (not pixels);
    ``rms``: √(Σδ²/D), the L2 norm over √D, where D is the number of features of one example.

    Args:
      delta: [B, ...] perturbations, in input units.
      norm: which norm.
      floor: smallest value under the square root of ``l2`` (of Σδ²) and ``rms`` (of Σδ²/D). The root has no finite derivative at
        0, so give a floor where the norm is differentiated. Ignored by the other norms.

    Returns:
      [B] norms, in input units (``l0``: a count), of ``delta``'s dtype.

    Raises:
      SettingError: the norm has no such name, or ``delta`` has no feature dimension.

    Example:
      >>> import jax.numpy as jnp
      >>> per_example_norm(jnp.array([[3.0, -4.0], [0.0, 2.0]]), "l2")
      Array([5., 2.], dtype=float32)
    """
    check_norm(norm)
    if delta.ndim < 2:
        raise SettingError("delta", delta.shape, "a batch of perturbations of shape [B, ...]")
    flat = delta.reshape(delta.shape[0], -1)
    if norm == "linf":
        return jnp.max(jnp.abs(flat), axis=1)
    if norm == "l1":
        return jnp.sum(jnp.abs(flat), axis=1)
    if norm == "l0":
        return jnp.sum(flat != 0, axis=1).astype(delta.dtype)
    squares = jnp.sum(jnp.square(flat), axis=1)
    return jnp.sqrt(jnp.maximum(squares / flat.shape[1] if norm == "rms" else squares, floor))


def dual_norm(norm: Norm) -> Norm:
    """The norm q with max over ‖δ‖_p ≤ 1 of ⟨w, δ⟩ = ‖w‖_q: the distance of a point to a plane is |f| / ‖w‖_q.

    Args:
      norm: ``linf``, ``l2`` or ``l1``.

    Returns:
      The name of the dual norm.

    Raises:
      SettingError: ``l0`` and ``rms`` have no dual among the named norms.

    Example:
      >>> dual_norm("linf")
      'l1'
    """
    duals: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
    if norm not in duals:
        raise SettingError("norm", norm, "one of linf, l2, l1")
    return duals[norm]


def normalize(delta: Array, norm: Norm) -> Array:
    """Scale every example to unit norm; an example of zeros stays zero.

    Examples are first divided by their largest magnitude, so that gradients as small as float32 can hold (their squares would
    underflow) keep their direction.

    Args:
      delta: [B, ...].
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.

    Returns:
      [B, ...] of the same dtype.

    Raises:
      SettingError: the norm is ``l0``, which no scaling changes, or has no such name.

    Example:
      >>> import jax.numpy as jnp
      >>> normalize(jnp.array([[3e-30, 4e-30], [0.0, 0.0]]), "l2").round(3)
      Array([[0.6, 0.8],
             [0. , 0. ]], dtype=float32)
    """
    if norm == "l0":
        raise SettingError("norm", norm, "one of linf, l2, l1, rms")
    largest = expand(per_example_norm(delta, "linf"), delta)
    scaled = delta / jnp.where(largest > 0, largest, 1)
    size = expand(per_example_norm(scaled, norm), delta)
    return scaled / jnp.where(size > 0, size, 1)


def steepest_direction(gradient: Array, norm: Norm, *, num_features: int = 1) -> Array:
    """The unit-norm step along which a function of the given gradient rises fastest: argmax of ⟨g, δ⟩ over ‖δ‖ ≤ 1.

    ``linf``: sgn(g); ``l2`` and ``rms``: g/‖g‖; ``l1``: the sign of the ``num_features`` largest |g|, divided by their number (1
    is the exact maximiser; more spread the step, as sparse L1 descent does). Features tied with the last one are taken too.

    Args:
      gradient: [B, ...]; an example with a zero gradient gets a zero step.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      num_features: ``l1`` only: how many features share the step.

    Returns:
      [B, ...] steps of norm 1, or 0 where the gradient is 0.

    Raises:
      SettingError: an unknown norm, ``l0``, or ``num_features`` outside 1 … D.

    Example:
      >>> import jax.numpy as jnp
      >>> steepest_direction(jnp.array([[1.0, -4.0, 2.0]]), "l1")
      Array([[ 0., -1.,  0.]], dtype=float32)

    References:
      Goodfellow et al. 2015 (L∞); Tramèr and Boneh 2019, "Adversarial Training and Robustness for Multiple Perturbations" (L1).
    """
    if norm == "linf":
        return jnp.sign(gradient)
    if norm != "l1":
        return normalize(gradient, norm)
    flat = jnp.abs(gradient.reshape(gradient.shape[0], -1))
    if not 1 <= num_features <= flat.shape[1]:
        raise SettingError("num_features", num_features, f"an integer from 1 to {flat.shape[1]}")
    # one alone needs no search
    largest = flat >= jnp.max(flat, axis=1, keepdims=True) if num_features == 1 else among_largest(flat, num_features)
    moved = (largest & (flat > 0)).reshape(gradient.shape)
    return normalize(jnp.where(moved, jnp.sign(gradient), 0), "l1")


def check_norm(norm: str) -> None:
    """Raise SettingError unless the norm is one of those this package names."""
    if norm not in NORMS:
        raise SettingError("norm", norm, "one of " + ", ".join(NORMS))
