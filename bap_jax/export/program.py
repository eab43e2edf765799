"""A network as an exported program: StableHLO that runs without the code that it was written in."""

from __future__ import annotations

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import leaf_paths
from bap_jax.types import Apply, Array, Model, ModelState, Outputs, Params, PyTree

PLATFORMS = ("cpu", "cuda", "tpu")


def flat(tree: PyTree) -> dict[str, Array]:
    """The arrays of a tree by their paths: what a program takes, whatever classes the tree is made of.

    Example:
      >>> list(flat({"conv": {"kernel": 1, "bias": 2}}))
      ['conv/bias', 'conv/kernel']
    """
    return dict(zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True))


def export_program(
    apply: Apply, params: Params, model_state: ModelState, image_shape: tuple[int, ...], platforms: tuple[str, ...] = PLATFORMS
) -> export.Exported:
    """The forward pass in eval mode as StableHLO, for a batch of any size.

    Args:
      apply: of the network.
      params: arrays, or only their shapes and dtypes; they stay arguments of the program.
      model_state: likewise.
      image_shape: of one image.
      platforms: what it is compiled for.

    Returns:
      The program ``(params, model_state, images) -> logits``, both trees as :func:`flat` makes them.

    Example:
      >>> from bap_jax.types import Outputs
      >>> program = export_program(lambda p, s, x, train: (Outputs(x @ p["w"], {}), s), {"w": jnp.eye(2)}, {}, (2,))
      >>> program.call({"w": jnp.eye(2)}, {}, jnp.ones((3, 2))).shape
      (3, 2)
    """
    trees = [(jax.tree.structure(tree), leaf_paths(tree)) for tree in (params, model_state)]

    def logits(params: dict[str, Array], model_state: dict[str, Array], images: Array) -> Array:
        given = zip(trees, (params, model_state), strict=True)
        weights, state = (jax.tree.unflatten(tree, [leaves[path] for path in paths]) for (tree, paths), leaves in given)
        return apply(weights, state, images, train=False)[0].logits

    shapes = [
        {path: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for path, leaf in flat(tree).items()}
        for tree in (params, model_state)
    ]
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    return export.export(jax.jit(logits), platforms=platforms)(*shapes, images)


def to_bytes(program: export.Exported) -> bytes:
    """A program with its first derivatives, so that it can be attacked, as the bytes of a file.

    Raises:
      SettingError: the package flatbuffers is missing.
    """
    need_flatbuffers()
    return bytes(program.serialize(vjp_order=1))


def from_bytes(data: bytes, where: str) -> Model:
    """The network in a file that :func:`to_bytes` made: ``init`` gives zeros, ``apply`` refuses to train.

    Raises:
      SettingError: it is no such file, or the package flatbuffers is missing.
    """
    need_flatbuffers()
    try:
        program = export.deserialize(bytearray(data))
    except Exception as error:  # of flatbuffers, of jax: whatever is wrong with the bytes
        raise SettingError("program", where, f"a program that bap compact wrote ({type(error).__name__})") from error
    return as_model(program)


def as_model(program: export.Exported) -> Model:
    """A program as a :class:`bap_jax.types.Model`."""
    (params, model_state, _), _ = jax.tree.unflatten(program.in_tree, program.in_avals)

    def init(key: Array, images: Array) -> tuple[Params, ModelState]:
        made: Any = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (params, model_state))
        return made

    def apply(
        params: Params, model_state: ModelState, images: Array, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, ModelState]:
        if train:
            raise SettingError("train", True, "False: an exported program cannot be trained further")
        return Outputs(program.call(params, model_state, images), {}), model_state

    return Model(init, apply)


def need_flatbuffers() -> None:
    """Refuses to go on where the package is missing with which programs are written and read.

    Raises:
      SettingError: it is.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        expected = "to be installed, for files of exported programs: pip install 'bap_jax[export]'"
        raise SettingError("package", "flatbuffers", expected)
