"""What a pytree's leaves look like, written down so that two trees can be compared by name before anything is restored."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from bap_jax.errors import CheckpointError, SettingError
from bap_jax.types import PyTree

SCALARS = (bool, int, float)


def describe_leaf(leaf: Any) -> str:
    """One leaf as text: its dtype and its shape.

    Args:
      leaf: an array (jax or numpy), a ``jax.ShapeDtypeStruct``, or a Python bool, int or float.

    Returns:
      ``"float32[3,4]"``, ``"bool[]"``, ``"key<fry>[]"`` for a typed random key (its implementation is part of the dtype), and
      ``"int"`` for a Python number.

    Raises:
      TypeError: the leaf is none of these.

    Example:
      >>> import numpy as np
      >>> describe_leaf(np.zeros((3, 4), np.float32)), describe_leaf(7)
      ('float32[3,4]', 'int')
    """
    if type(leaf) in SCALARS:
        return type(leaf).__name__
    if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        raise TypeError(f"a leaf of type {type(leaf).__name__}")
    return f"{leaf.dtype}[{','.join(str(n) for n in leaf.shape)}]"


def describe(tree: PyTree, name: str = "state") -> dict[str, str]:
    """All leaves of a tree as text, by path.

    Args:
      tree: a pytree of arrays, abstract arrays or Python numbers.
      name: what the tree is called in an error.

    Returns:
      ``{"params/dense/kernel": "float32[3,4]", ...}`` in the tree's own order.

    Raises:
      SettingError: a leaf is neither an array nor a number, so that it cannot be saved.

    Example:
      >>> import numpy as np
      >>> describe({"step": 3, "mask": np.ones(2, bool)})
      {'mask': 'bool[2]', 'step': 'int'}
    """
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        key = jax.tree_util.keystr(path, simple=True, separator="/")
        try:
            found[key] = describe_leaf(leaf)
        except TypeError:
            raise SettingError(f"{name}/{key}", leaf, "an array, a random key, a bool, an int or a float") from None
    return found


def check_layout(stored: dict[str, str], wanted: dict[str, str], where: str) -> None:
    """Refuse a checkpoint that does not fit its target, naming the first leaf that differs.

    orbax itself would cast (a uint8 leaf into a bool mask without a word), so this comparison is exact: same paths, same shapes,
    same dtypes.

    Args:
      stored: :func:`describe` of what was saved.
      wanted: :func:`describe` of what it is to be restored into.
      where: the checkpoint, for the message.

    Raises:
      CheckpointError: the leaves differ; the message holds the first path at which they do, and both leaves.

    Example:
      >>> check_layout({"w": "uint8[2]"}, {"w": "bool[2]"}, "runs/x, step 5")
      Traceback (most recent call last):
          ...
      bap_jax.errors.CheckpointError: runs/x, step 5 does not fit at w: the checkpoint has uint8[2], expected bool[2]
    """
    for path in [*wanted, *(path for path in stored if path not in wanted)]:
        have, want = stored.get(path, "no such leaf"), wanted.get(path, "no such leaf")
        if have == want:
            continue
        message = f"{where} does not fit at {path}: the checkpoint has {have}, expected {want}"
        if have.startswith("key<") and want.startswith("key<") and have.split("[")[0] != want.split("[")[0]:
            message += " (a random key of another implementation, see jax_default_prng_impl)"
        raise CheckpointError(message)


def as_target(state: PyTree, sharding: jax.sharding.Sharding | None = None) -> PyTree:
    """A state's abstract twin, to restore into.

    Args:
      state: a pytree of arrays or ``jax.ShapeDtypeStruct``, for example from ``jax.eval_shape``.
      sharding: where every leaf is to lie. Without one, each leaf lies where its twin in ``state`` lies, and a leaf that has no
        place (the output of ``jax.eval_shape``) comes to the first device of this process.

    Returns:
      The same tree with a ``jax.ShapeDtypeStruct`` for every jax array. numpy arrays and Python numbers stay what they are, and
      are restored as such.

    Example:
      >>> import jax
      >>> as_target(jax.eval_shape(lambda: {"key": jax.random.key(0)}))["key"].dtype
      key<fry>
    """
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def abstract(leaf: Any) -> Any:
        if not isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
            return np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
        place = sharding if sharding is not None else (getattr(leaf, "sharding", None) or default)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree.map(abstract, state)
