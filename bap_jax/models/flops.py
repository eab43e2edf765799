"""How much work a forward pass is: its convolutions and matrix products, dense and with zero weights left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import kernels, leaf_paths
from bap_jax.types import Array, PyTree

# Calls of an inner jaxpr with the operands as they are, and the parameter that holds it.
_CALLS = frozenset(
    [
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "remat",
        "remat2",
        "checkpoint",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
    ]
)
_HOLDERS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
# Operations whose inner jaxpr combines two scalars begin so: no weights go in there.
_COMBINERS = ("reduce", "scatter", "select_and", "sort")
# Operations that multiply matrices, or may, in a way that is not counted here.
_UNCOUNTED = frozenset(
    [
        "ragged_dot",
        "ragged_dot_general",
        "scaled_dot",
        "scaled_matmul",
        "pallas_call",
        "ffi_call",
        "custom_call",
        "call_exported",
        "pure_callback",
        "io_callback",
        "triangular_solve",
        "cholesky",
        "lu",
        "eigh",
        "svd",
        "qr",
        "fft",
        "custom_linear_solve",
    ]
)


class Flops(NamedTuple):
    """Floating-point operations of a forward pass, a multiplication with its addition being two."""

    dense: int
    sparse: int  # without the products with a zero weight
    uncounted: tuple[str, ...]  # kernels that took part in no convolution or matrix product: what is done with them is not in


class _Known(NamedTuple):
    """A value that the images have no part in. It is computed only if it turns out to be a kernel."""

    make: Callable[[], Any]
    leaves: frozenset[str]  # the parameters that it is made of


_Value = _Known | None  # None: it depends on the images


def count_flops(forward: Callable[[PyTree, Array], Any], params: PyTree, images: jax.ShapeDtypeStruct | Array) -> Flops:
    """The FLOPs of a forward pass, counted from its jaxpr; nothing is compiled, and no image is needed.

    Counted are ``conv_general_dilated`` (2 · output elements · kernel elements per output channel; the padding counts like
    pixels) and ``dot_general`` (2 · output elements · contracted length), wherever they stand: inside jit, custom derivatives,
    checkpoints, scans and branches. Additions of biases, normalisation, activations and pooling are not, as is usual. In the
    sparse count a kernel's zeros do no work: every weight takes part in as many products as any other of its kernel, so this is
    the dense count times the kernel's own share of non-zeros. A kernel that is computed from parameters (masked, scaled, a
    product of two) is computed here too, and its zeros are counted; products of parameters alone are not work per image.

    Args:
      forward: ``(params, images) -> logits``.
      params: a pytree of arrays, pruned weights being zero.
      images: [B, ...] an array, or its shape and dtype; the count is that of the whole batch.

    Returns:
      Flops. The sparse count is what perfectly sparse arithmetic would have to do; no promise about time.

    Raises:
      SettingError: an operation whose work is not known here: a loop with an unknown number of turns that multiplies matrices,
        branches that differ, a transposed convolution, a custom kernel.

    Example:
      >>> params = {"w": jnp.array([[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]])}
      >>> count_flops(lambda p, x: jnp.tanh(x @ p["w"]), params, jax.ShapeDtypeStruct((1, 3), jnp.float32))
      Flops(dense=12, sparse=6, uncounted=())
    """
    closed = jax.make_jaxpr(forward)(params, images)
    paths, leaves = leaf_paths(params), jax.tree.leaves(params)
    known: list[_Value] = [
        _Known(partial(_same, leaf), frozenset([path] if kernels(path, leaf) else []))
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    count = _Count()
    count.walk(closed, [*known, None])
    every = frozenset(path for path, leaf in zip(paths, leaves, strict=True) if kernels(path, leaf))
    return Flops(count.dense, count.sparse, tuple(path for path in paths if path in every - count.used))


class _Count:
    """A walk over a jaxpr under way."""

    def __init__(self) -> None:
        self.dense = self.sparse = 0
        self.used: frozenset[str] = frozenset()

    def walk(self, closed: Any, values: Sequence[_Value]) -> list[_Value]:
        """The outputs of a jaxpr for given inputs; what it multiplies is added to the count."""
        jaxpr = closed.jaxpr if isinstance(closed, core.ClosedJaxpr) else closed
        constants = closed.consts if isinstance(closed, core.ClosedJaxpr) else ()
        held = dict(zip(jaxpr.constvars, (_Known(partial(_same, value), frozenset()) for value in constants), strict=True))
        held |= dict(zip(jaxpr.invars, values, strict=True))

        def read(atom: Any) -> _Value:
            return _Known(partial(_same, atom.val), frozenset()) if isinstance(atom, core.Literal) else held[atom]

        for equation in _needed(jaxpr):
            held |= dict(zip(equation.outvars, self._step(equation, [read(atom) for atom in equation.invars]), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _step(self, equation: Any, inputs: list[_Value]) -> list[_Value]:
        name = equation.primitive.name
        if name in _CALLS:
            return self.walk(next(equation.params[holder] for holder in _HOLDERS if holder in equation.params), inputs)
        if all(value is not None for value in inputs):
            return _computed(equation, [value for value in inputs if value is not None])
        if name == "conv_general_dilated":
            self._convolve(equation, inputs)
        elif name == "dot_general":
            self._multiply(equation, inputs)
        elif name == "scan":
            return self._scan(equation, inputs)
        elif name == "cond":
            return self._branch(equation, inputs)
        elif name == "while":
            self._loop(equation, inputs)
        elif name in _UNCOUNTED or (_has_jaxpr(equation) and not name.startswith(_COMBINERS)):
            raise SettingError("forward", name, "operations whose work is known: convolutions and matrix products are counted")
        return [None] * len(equation.outvars)

    def _convolve(self, equation: Any, inputs: list[_Value]) -> None:
        options = equation.params
        if any(step != 1 for step in options["lhs_dilation"]):
            raise SettingError("forward", "a transposed convolution", "convolutions without lhs_dilation")
        kernel = equation.invars[1].aval
        channels = kernel.shape[options["dimension_numbers"].rhs_spec[0]]
        self._add(equation, inputs, kernel.size // channels)

    def _multiply(self, equation: Any, inputs: list[_Value]) -> None:
        (contracted, _), _ = equation.params["dimension_numbers"]
        self._add(equation, inputs, math.prod(equation.invars[0].aval.shape[axis] for axis in contracted))

    def _add(self, equation: Any, inputs: list[_Value], length: int) -> None:
        """Sums of ``length`` products for every element of the output."""
        products = equation.outvars[0].aval.size * length
        weights = next((value for value in inputs if value is not None), None)
        kept = products
        if weights is not None:
            array = np.asarray(weights.make())
            kept = products * int(np.count_nonzero(array)) // max(array.size, 1)  # a multiple of the kernel's size, so exact
            self.used |= weights.leaves
        self.dense, self.sparse = self.dense + 2 * products, self.sparse + 2 * kept

    def _scan(self, equation: Any, inputs: list[_Value]) -> list[_Value]:
        options, body = equation.params, equation.params["jaxpr"]
        # What is scanned over has one axis more outside than inside; JAX versions name the rest differently.
        num_rows = sum(_is_stacked(outer, inner) for outer, inner in zip(equation.invars, body.in_avals, strict=True))
        num_carry = sum(not _is_stacked(outer, inner) for outer, inner in zip(equation.outvars, body.out_avals, strict=True))
        second = len(inputs) - num_rows
        fixed, carry, rows = inputs[: second - num_carry], inputs[second - num_carry : second], inputs[second:]
        turns = range(options["length"])
        stacked: list[list[_Value]] = []
        for turn in reversed(turns) if options["reverse"] else turns:
            outputs = self.walk(body, [*fixed, *carry, *(_row(value, turn) for value in rows)])
            carry = outputs[: len(carry)]
            stacked.append(outputs[len(carry) :])
        if options["reverse"]:
            stacked.reverse()
        columns = [[row[place] for row in stacked] for place in range(len(equation.outvars) - len(carry))]
        return [*carry, *(_stack(column) for column in columns)]

    def _branch(self, equation: Any, inputs: list[_Value]) -> list[_Value]:
        chosen, *rest = inputs
        branches = equation.params["branches"]
        if chosen is not None:
            return self.walk(branches[int(chosen.make())], rest)
        counts = []
        for branch in branches:
            counts.append(_Count())
            counts[-1].walk(branch, rest)
        if len({(count.dense, count.sparse) for count in counts}) > 1:
            raise SettingError("forward", "branches of different work", "the same work whatever the images are")
        self.dense, self.sparse = self.dense + counts[0].dense, self.sparse + counts[0].sparse
        self.used = self.used.union(*(count.used for count in counts))
        return [None] * len(equation.outvars)

    def _loop(self, equation: Any, inputs: list[_Value]) -> None:
        options, tried = equation.params, _Count()
        first, second = options["cond_nconsts"], options["cond_nconsts"] + options["body_nconsts"]
        state: list[_Value] = [None] * (len(inputs) - second)
        tried.walk(options["cond_jaxpr"], [*inputs[:first], *state])
        tried.walk(options["body_jaxpr"], [*inputs[first:second], *state])
        if tried.dense:
            raise SettingError(
                "forward", "a while loop with matrix products", "loops whose number of turns is known, such as a scan"
            )


def _needed(jaxpr: Any) -> list[Any]:
    """The equations that the outputs depend on, in order."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            kept.append(equation)
            wanted.update(atom for atom in equation.invars if not isinstance(atom, core.Literal))
    return kept[::-1]


def _computed(equation: Any, inputs: list[_Known]) -> list[_Value]:
    """The outputs of an operation on known values, computed when one is asked for."""

    @cache
    def run() -> Sequence[Any]:
        options = equation.primitive.get_bind_params(equation.params)
        found = equation.primitive.bind(*(value.make() for value in inputs), **options)
        return found if equation.primitive.multiple_results else [found]

    leaves = frozenset[str]().union(*(value.leaves for value in inputs))
    return [_Known(partial(_at, run, place), leaves) for place in range(len(equation.outvars))]


def _has_jaxpr(equation: Any) -> bool:
    values = [part for value in equation.params.values() for part in (value if isinstance(value, tuple | list) else (value,))]
    return any(isinstance(value, core.Jaxpr | core.ClosedJaxpr) for value in values)


def _is_stacked(outer: Any, inner: Any) -> bool:
    return len(outer.aval.shape) > len(inner.shape)


def _row(value: _Value, turn: int) -> _Value:
    return None if value is None else _Known(lambda: value.make()[turn], value.leaves)


def _stack(values: Sequence[_Value]) -> _Value:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return _Known(
        lambda: jnp.stack([value.make() for value in known]), frozenset[str]().union(*(value.leaves for value in known))
    )


def _same(value: Any) -> Any:
    return value


def _at(run: Callable[[], Sequence[Any]], place: int) -> Any:
    return run()[place]
