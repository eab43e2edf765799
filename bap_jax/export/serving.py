"""A network as a program: StableHLO that JAX alone runs, on a CPU, a GPU or a TPU, with its weights inside or beside."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.atomic import write_atomic
from bap_jax.errors import SettingError
from bap_jax.export.program import PLATFORMS, need_flatbuffers
from bap_jax.types import Array

SUFFIX, WEIGHTS = ".stablehlo", ".npz"  # model.stablehlo, model.stablehlo.npz


class Program(NamedTuple):
    """A program read from its file."""

    call: Callable[[Mapping[str, Array], Array], Array]  # (weights, images [B, ...]) -> logits [B, K]
    weights: dict[str, np.ndarray]  # by name, {} where they are inside
    image_shape: tuple[int, ...]
    num_classes: int
    gradients: bool  # whether the program has its derivative with it


def write_program(
    path: str | os.PathLike[str],
    predict: Callable[[Mapping[str, Array], Array], Array],
    weights: Mapping[str, Any],
    image_shape: tuple[int, ...],
    *,
    inside: bool = True,
    gradients: bool = False,
    platforms: tuple[str, ...] = PLATFORMS,
) -> dict[str, tuple[Path, str]]:
    """Write a function of images as a serialised ``jax.export`` program, for batches of any size.

    In a process without this library::

        program = jax.export.deserialize(bytearray(open(path, "rb").read()))
        logits = jax.jit(program.call)(images)                                   # weights inside
        logits = jax.jit(program.call)(dict(np.load(f"{path}.npz")), images)     # weights beside

    Args:
      path: where to; its folder must exist.
      predict: ``(weights, images) -> logits``, of operations that every platform has.
      weights: arrays by name.
      image_shape: of one image; it is called with [B, ...] float32 for any B ≥ 1.
      inside: the weights are constants of the program; else they stand in ``PATH.npz`` and are its first argument.
      gradients: its derivative with respect to the images goes into the file, too: what attacks need. With the weights inside,
        they are then there more than once.
      platforms: what it can be run on.

    Returns:
      ``program``, and ``weights`` where they are beside: the file and its SHA-256. The same network gives the same bytes.

    Raises:
      SettingError: flatbuffers is not installed, or ``predict`` returns no [B, K] for a B that is not known.

    Example:
      >>> import tempfile, pytest
      >>> _ = pytest.importorskip("flatbuffers")
      >>> path = tempfile.mkdtemp() + "/model.stablehlo"
      >>> _ = write_program(path, lambda weights, images: images @ weights["w"], {"w": np.eye(2, dtype=np.float32)}, (2,))
      >>> found = read_program(path)
      >>> found.image_shape, found.num_classes, found.call(found.weights, jnp.ones((3, 2))).shape
      ((2,), 2, (3, 2))
    """
    need_flatbuffers()
    arrays = {name: jnp.asarray(array) for name, array in sorted(weights.items())}
    given = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), arrays)
    images = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), *image_shape), jnp.float32)
    if inside:
        exported = jax.export.export(jax.jit(lambda images: predict(arrays, images)), platforms=platforms)(images)
    else:
        exported = jax.export.export(jax.jit(predict), platforms=platforms)(given, images)
    if len(exported.out_avals) != 1 or exported.out_avals[0].ndim != 2 or exported.out_avals[0].shape[0] != images.shape[0]:
        shapes = ", ".join(str(list(aval.shape)) for aval in exported.out_avals)
        raise SettingError("predict", shapes, "logits [batch, K] for images [batch, ...]")
    content = bytes(exported.serialize(vjp_order=int(gradients)))
    found = {"program": (Path(path), content)}
    if not inside:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
        found["weights"] = (Path(f"{path}{WEIGHTS}"), buffer.getvalue())
    for file, content in found.values():
        write_atomic(file, content)
    return {which: (file, hashlib.sha256(content).hexdigest()) for which, (file, content) in found.items()}


def read_program(path: str | os.PathLike[str], digests: Mapping[str, str] | None = None) -> Program:
    """The program in a file of :func:`write_program`, with the weights beside it, if it takes any.

    Args:
      path: the file.
      digests: of :func:`write_program`: SHA-256 of ``program`` and, where they are beside, of ``weights``. Without them nothing
        tells a program whose constants were altered.

    Returns:
      A :class:`Program`. Its call is differentiated with respect to images only if it was written with ``gradients``.

    Raises:
      SettingError: flatbuffers is not installed; a file that is not there, not whole, or other than its digest says.
    """
    need_flatbuffers()
    content = _checked(Path(path), "program", digests)
    try:
        exported = jax.export.deserialize(bytearray(content))
        *weights, images = exported.in_avals
        shape, classes = tuple(int(size) for size in images.shape[1:]), int(exported.out_avals[0].shape[1])
    except Exception as error:  # whatever the decoder meets in bytes that are no program
        raise SettingError("file", str(path), f"a program that jax.export serialised ({type(error).__name__})") from error
    given: dict[str, np.ndarray] = {}
    if weights:
        beside = Path(f"{path}{WEIGHTS}")
        try:
            with np.load(io.BytesIO(_checked(beside, "weights", digests)), allow_pickle=False) as stored:
                given = {name: stored[name] for name in stored.files}
        except (ValueError, OSError, EOFError, KeyError) as error:
            raise SettingError("file", str(beside), f"the weights of {path} ({error})") from None
    try:
        jax.eval_shape(_call(exported), given, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    except (ValueError, TypeError, AssertionError):
        raise SettingError("file", str(beside), f"the weights that {path} takes: other names, shapes or types") from None
    call = _call(exported)
    call = _one_by_one(call) if exported.has_vjp() else _without_gradients(call, str(path))
    return Program(call, given, shape, classes, exported.has_vjp())


def _call(exported: Any) -> Callable[[Mapping[str, Array], Array], Array]:
    if len(exported.in_avals) == 1:
        return lambda weights, images: exported.call(images)
    return lambda weights, images: exported.call(dict(weights), images)


def _one_by_one(call: Callable) -> Callable:
    """The call and its derivative, made one after the other under ``vmap``, for which jax has no rule for a program.

    Attacks ask for the derivatives of all classes so.
    """

    @jax.custom_batching.sequential_vmap
    def answer(weights: Mapping[str, Array], images: Array) -> Array:
        return call(weights, images)

    @jax.custom_batching.sequential_vmap
    def pull(weights: Mapping[str, Array], images: Array, towards: Array) -> Any:
        return jax.vjp(call, weights, images)[1](towards)

    def forward(weights: Mapping[str, Array], images: Array) -> Any:
        return answer(weights, images), (weights, images)

    differentiable = jax.custom_vjp(answer)
    differentiable.defvjp(forward, lambda given, towards: pull(*given, towards))
    return differentiable


def _without_gradients(call: Callable, path: str) -> Callable:
    """The call, which says what it lacks where it is differentiated."""
    expected = "a program with its derivative, which gradient attacks need: bap export --format stablehlo --gradients"

    def refuse(*_: Any) -> Any:
        raise SettingError("file", path, expected)

    guarded = jax.custom_vjp(call)
    guarded.defvjp(refuse, refuse)
    return guarded


def _checked(path: Path, which: str, digests: Mapping[str, str] | None) -> bytes:
    if not path.is_file():
        raise SettingError("file", str(path), f"a file that is there: the {which}")
    content = path.read_bytes()
    if digests is not None and hashlib.sha256(content).hexdigest() != digests.get(which):
        raise SettingError("file", str(path), f"the {which} as written; this one was cut off or altered: its digest is another")
    return content
