"""Frozen weights, trained scores: what the pruners that search for masks have in common.

What they train is a dict: ``"scores"`` of every prunable weight, and ``"weights"`` that are trained beside them: BatchNorm's
scale and shift. Both trees have the structure of the network's weights, a scalar 0 where a leaf has no part in them.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import Prunable, leaf_paths
from bap_jax.types import Array, Params, PyTree


@jax.custom_vjp
def weights_by_score(weight: Array, score: Array, mask: Array) -> Array:
    """The kept weights. The pull-back treats the mask as if it were ``|score|``: ``w · g · sgn(s)`` for kept and pruned alike.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> w, s, mask = jnp.array([2.0, 3.0]), jnp.array([-0.5, 0.1]), jnp.array([True, False])
      >>> jax.grad(lambda s: jnp.sum(jnp.array([1.0, 10.0]) * weights_by_score(w, s, mask)))(s).tolist()
      [-2.0, 30.0]
    """
    return jnp.where(mask, weight, jnp.zeros_like(weight))


def _forward(weight: Array, score: Array, mask: Array):
    return weights_by_score(weight, score, mask), (weight, score)


def _backward(residuals, gradient: Array):
    weight, score = residuals
    return jnp.zeros_like(weight), (weight * gradient * jnp.sign(score)).astype(score.dtype), None


weights_by_score.defvjp(_forward, _backward)


def fan_in(kernel: Array) -> int:
    """How many inputs an output of a kernel [..., inputs, outputs] has: all its axes but the last.

    Example:
      >>> import jax.numpy as jnp
      >>> fan_in(jnp.zeros((3, 3, 16, 32)))
      144
    """
    return math.prod(kernel.shape[:-1])


def kaiming_uniform(key: Array, kernel: Array) -> Array:
    """Uniform in ``±1/√fan_in``: the initialisation of torch's layers (Kaiming's with a = √5).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> bool(jnp.max(jnp.abs(kaiming_uniform(jax.random.key(0), jnp.zeros((100, 5))))) <= 0.1)
      True
    """
    bound = 1.0 / math.sqrt(fan_in(kernel))
    return jax.random.uniform(key, kernel.shape, jnp.float32, -bound, bound)


def batch_norm_leaves(params: Params, prunable: Prunable) -> list[bool]:
    """Which leaves are BatchNorm's scale and shift, in tree order: those that are not prunable and stand beside a ``scale``.

    Example:
      >>> import jax.numpy as jnp
      >>> one = jnp.ones(2)
      >>> batch_norm_leaves({"bn": {"bias": one, "scale": one}, "fc": {"bias": one}}, lambda path, leaf: False)
      [True, True, False]
    """
    paths = leaf_paths(params)
    parents = {path.rpartition("/")[0] for path in paths if path.rpartition("/")[2] == "scale"}
    return [
        path.rpartition("/")[0] in parents and not prunable(path, leaf)
        for path, leaf in zip(paths, jax.tree.leaves(params), strict=True)
    ]


def only(params: Params, chosen: list[bool]) -> PyTree:
    """A tree of the chosen leaves, a scalar 0 in place of each other.

    Example:
      >>> import jax.numpy as jnp
      >>> {name: leaf.shape for name, leaf in only({"a": jnp.ones(2), "b": jnp.ones(2)}, [True, False]).items()}
      {'a': (2,), 'b': ()}
    """
    leaves, treedef = jax.tree.flatten(params)
    picked = [leaf if yes else jnp.zeros((), leaf.dtype) for leaf, yes in zip(leaves, chosen, strict=True)]
    return jax.tree.unflatten(treedef, picked)


def filled(weights: Params, tree: PyTree, chosen: list[bool]) -> Params:
    """The weights with the chosen leaves of another tree in place of their own."""
    leaves = zip(jax.tree.leaves(weights), jax.tree.leaves(tree), chosen, strict=True)
    return jax.tree.unflatten(jax.tree.structure(weights), [new if yes else old for old, new, yes in leaves])


def check_sparsity(sparsity: float) -> None:
    """Raises SettingError unless a sparsity is a number in [0, 1]."""
    if not 0 <= sparsity <= 1:
        raise SettingError("sparsity", sparsity, "a number in [0, 1]")
