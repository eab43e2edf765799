"""Any function with fast convolutions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core

from bap_jax.mathematics.convolution import conv_kind, fast_primitive
from bap_jax.mathematics.jaxprs import with_primitives


class Fast:
    """See :func:`fast`. Two of the same function are equal: what is compiled for one serves the other."""

    def __init__(self, function: Callable[..., Any]):
        functools.update_wrapper(self, function, updated=())
        self._function = function

    def __call__(self, *args: Any, **options: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, options))
        places = [place for place, leaf in enumerate(leaves) if _is_array(leaf)]
        others: list[Any] = []

        def traced(*arrays: Any) -> list[Any]:
            given = list(leaves)
            for place, array in zip(places, arrays, strict=True):
                given[place] = array
            args, options = jax.tree.unflatten(structure, given)
            results, result_structure = jax.tree.flatten(self._function(*args, **options))
            others[:] = result_structure, [None if _is_array(result) else (result,) for result in results]
            return [result for result in results if _is_array(result)]

        arrays = [leaves[place] for place in places]
        closed = with_primitives(jax.make_jaxpr(traced)(*arrays), fast_primitive)
        computed = iter(core.jaxpr_as_fun(closed)(*arrays))
        result_structure, known = others
        return jax.tree.unflatten(result_structure, [next(computed) if one is None else one[0] for one in known])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fast) and self._function == other._function

    def __hash__(self) -> int:
        return hash((Fast, self._function))


def fast(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with :func:`bap_jax.models.fast_conv` in place of its two-dimensional convolutions.

    On a CPU an attack on a network with ordinary convolutions, and any other loop of gradients, takes several times as long as it
    needs to (:func:`bap_jax.models.fast_conv` says why). The function is traced, and in what it computes the convolutions are
    replaced: of any layout, grouped, dilated and strided ones, also inside ``jit``, ``remat``, ``scan``, ``while``, ``cond`` and
    ``custom_jvp``. What cannot be replaced stays: convolutions in one or three dimensions, transposed ones, and whatever a
    ``custom_vjp`` holds, whose backward pass is its own. Values are the same, gradients to rounding, and every transformation of
    jax works as before. bap_jax does this by itself to the networks that it is given to train and to evaluate where jax runs on a
    CPU; on an accelerator there is nothing to gain.

    Args:
      function: a pure function whose arguments are arrays, trees of them, and whatever else it takes; the rest is left as it is,
        so that an argument such as ``train=True`` may decide what is computed. Its results are likewise.

    Returns:
      A function of the same arguments and results. ``fast(f) == fast(f)``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def network(images, *, scale=2.0):
      ...     return {"sums": scale * jax.lax.conv(images, jnp.ones((1, 1, 3, 3)), (1, 1), "SAME")}
      >>> images = jnp.ones((1, 1, 4, 4))
      >>> bool((fast(network)(images)["sums"] == network(images)["sums"]).all())
      True
    """
    return function if isinstance(function, Fast) else Fast(function)


def fast_by_default(function: Callable[..., Any]) -> Callable[..., Any]:
    """:func:`fast` where :func:`bap_jax.mathematics.convolution.conv_kind` says so, else the function itself.

    Example:
      >>> fast_by_default(len)("abc")
      3
    """
    return fast(function) if conv_kind() == "fast" else function


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic)
