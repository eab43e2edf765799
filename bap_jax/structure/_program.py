"""A network's forward pass as one flat list of operations: its jaxpr with every call written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import leaf_paths
from bap_jax.types import Array, Model, ModelState, Params

Tree = Literal["params", "model_state"]

# Operations that only call another program, and where they keep it: written out, for what they do is what is inside.
_CALLS = MappingProxyType(
    {
        "jit": ("jaxpr",),
        "pjit": ("jaxpr",),
        "closed_call": ("call_jaxpr",),
        "core_call": ("call_jaxpr",),
        "custom_jvp_call": ("call_jaxpr",),
        "custom_vjp_call": ("call_jaxpr", "fun_jaxpr"),
        "custom_vjp_call_jaxpr": ("fun_jaxpr",),
        "checkpoint": ("jaxpr",),
        "remat": ("jaxpr",),
        "remat2": ("jaxpr",),
        "composite": ("jaxpr",),
    }
)


def names(text: str) -> frozenset[str]:
    """The names of primitives in a text.

    Example:
      >>> sorted(names("sub add"))
      ['add', 'sub']
    """
    return frozenset(text.split())


class Operation(NamedTuple):
    """One primitive, applied to values by number."""

    primitive: Any
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the primitive."""
        return str(self.primitive.name)


class Leaf(NamedTuple):
    """One array of the network: in which tree, by which path, and which value of the program it is."""

    tree: Tree
    path: str
    value: int


class Program(NamedTuple):
    """A forward pass in eval mode, from parameters, model state and images to logits.

    Values are numbered; ``shapes`` has the shape of each. Operations that the logits do not depend on are left out.
    """

    operations: tuple[Operation, ...]
    shapes: tuple[tuple[int, ...], ...]
    leaves: tuple[Leaf, ...]  # of params, then of model_state, each in tree order
    images: int
    logits: int
    constants: dict[int, Array]


def trace(model: Model, params: Params, model_state: ModelState, images: Any) -> Program:
    """The forward pass in eval mode, written out.

    Args:
      model: the network.
      params: arrays, or only their shapes and dtypes.
      model_state: likewise.
      images: likewise, [B, ...].

    Returns:
      A :class:`Program`.
    """

    def logits(params: Params, model_state: ModelState, images: Array) -> Array:
        return model.apply(params, model_state, images, train=False)[0].logits

    params, model_state = shapes_of(params), shapes_of(model_state)
    closed = jax.make_jaxpr(logits)(params, model_state, images)
    writer = _Writer()
    inputs = [writer.value(variable.aval) for variable in closed.jaxpr.invars]
    (output,) = writer.write(closed.jaxpr, closed.consts, inputs)
    trees: tuple[tuple[Tree, Any], ...] = (("params", params), ("model_state", model_state))
    named = [(tree, path) for tree, given in trees for path in leaf_paths(given)]
    leaves = tuple(Leaf(tree, path, value) for (tree, path), value in zip(named, inputs, strict=False))
    return Program(_needed(writer.operations, output), tuple(writer.shapes), leaves, inputs[-1], output, writer.constants)


def bind(operation: Operation, values: Sequence[Any], params: dict[str, Any]) -> list[Any]:
    """Does an operation, with parameters that may differ from its own."""
    made = operation.primitive.bind(*values, **params)
    return list(made) if operation.primitive.multiple_results else [made]


def of_images(program: Program) -> frozenset[int]:
    """The values that depend on the images; all others are made of parameters, state and constants alone."""
    found = {program.images}
    for operation in program.operations:
        if found.intersection(operation.inputs):
            found.update(operation.outputs)
    return frozenset(found)


def abstract_images(image_shape: Sequence[int], batch: int = 2) -> jax.ShapeDtypeStruct:
    """A batch of float32 images by shape alone.

    Raises:
      SettingError: not a shape.

    Example:
      >>> abstract_images((8, 8, 3)).shape
      (2, 8, 8, 3)
    """
    if not image_shape or any(not isinstance(size, int) or size < 1 for size in image_shape):
        raise SettingError("image_shape", tuple(image_shape), "the shape of one image, as (32, 32, 3)")
    return jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)


def shapes_of(tree: Any) -> Any:
    """A tree of arrays as shapes and dtypes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree)


class _Writer:
    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.shapes: list[tuple[int, ...]] = []
        self.constants: dict[int, Array] = {}

    def value(self, aval: Any) -> int:
        self.shapes.append(tuple(getattr(aval, "shape", ())))
        return len(self.shapes) - 1

    def constant(self, value: Any) -> int:
        number = self.value(jax.typeof(value))
        self.constants[number] = value
        return number

    def write(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[int]) -> list[int]:
        """Appends a program's operations, calls written out; the numbers of its outputs."""
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {variable: self.constant(value) for variable, value in zip(jaxpr.constvars, consts, strict=True)}

        def read(atom: Any) -> int:
            if not isinstance(atom, core.Literal):
                return known[atom]
            aval: Any = atom.aval
            return self.constant(np.asarray(atom.val, aval.dtype))

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            inner = _inside(equation)
            if inner is None:
                outputs = [self.value(variable.aval) for variable in equation.outvars]
                self.operations.append(Operation(equation.primitive, equation.params, tuple(operands), tuple(outputs)))
            else:
                outputs = self.write(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
            known |= dict(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


def _inside(equation: Any) -> Any:
    """The program that an operation calls, if that is all it does."""
    keys = _CALLS.get(equation.primitive.name, ())
    return next((equation.params[key] for key in keys if key in equation.params), None)


def _needed(operations: Sequence[Operation], output: int) -> tuple[Operation, ...]:
    def backwards() -> Iterator[Operation]:
        needed = {output}
        for operation in reversed(operations):
            if needed.intersection(operation.outputs):
                needed.update(operation.inputs)
                yield operation

    return tuple(backwards())[::-1]
