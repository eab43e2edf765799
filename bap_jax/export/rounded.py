"""The tensors of a network as a small file holds them, floats, halves or integers with their scales; and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.export.network import Exported
from bap_jax.mathematics.quantize import Quantized, dequantize, quantize

DTYPES = ("float32", "float16")
SCALE, ZEROS = "@scale", "@zeros"  # beside a tensor: the scale of its integers; which of its kept weights are zero


def rounded(exported: Exported, *, dtype: str = "float32", bits: int | None = None) -> dict[str, np.ndarray]:
    """The tensors of a network, in the layout jax, as a file holds them.

    Args:
      exported: the network.
      dtype: of floats, ``float32``, or ``float16``, which rounds.
      bits: kernels as integers of so many bits, 2 to 8, with a scale for each output channel
        (:func:`bap_jax.mathematics.quantize.quantize`); biases and BatchNorm stay floats. None: all are floats.

    Returns:
      Every tensor by its name; beside prunable ones ``NAME@scale``, float32, where they are integers, and ``NAME@zeros``, bool,
      where some kept weight is zero: otherwise the mask is what is not zero.

    Raises:
      SettingError: another dtype, or a weight that float16 cannot hold.
    """
    if dtype not in DTYPES:
        raise SettingError("--dtype", dtype, " or ".join(DTYPES))
    found: dict[str, np.ndarray] = {}
    smalls: dict[str, Quantized] = {}
    if bits is not None:
        kernels = {name: exported.tensors[name] for name in exported.masks}
        smalls = jax.jit(lambda tensors: {name: quantize(tensor, bits=bits) for name, tensor in tensors.items()})(kernels)
    for name, tensor in exported.tensors.items():
        if name in smalls:
            small = smalls[name]
            found[name], found[name + SCALE] = np.asarray(small.values), np.asarray(small.scale)
        else:
            found[name] = _as(dtype, name, tensor)
        if name in exported.masks:
            zeros = exported.masks[name] & (found[name] == 0)
            if zeros.any():
                found[name + ZEROS] = zeros
    return found


def unrounded(tensors: Mapping[str, np.ndarray], prunable: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A network's weights and masks from the tensors of :func:`rounded`.

    Args:
      tensors: by name.
      prunable: the names of those that have masks.

    Returns:
      Weights by name, integers times their scales where they are integers; bool masks by name: what is not zero, or kept at zero.

    Raises:
      KeyError: a prunable tensor that is not there.
    """
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith((SCALE, ZEROS))}
    masks = {name: weights[name] != 0 for name in prunable}
    for name in prunable:
        if name + ZEROS in tensors:
            masks[name] |= tensors[name + ZEROS]
        if name + SCALE in tensors:
            weights[name] = np.asarray(dequantize(Quantized(jnp.asarray(weights[name]), jnp.asarray(tensors[name + SCALE]))))
    return weights, masks


def _as(dtype: str, name: str, tensor: np.ndarray) -> np.ndarray:
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        return tensor
    with np.errstate(over="ignore"):
        found = tensor.astype(dtype)
    if not np.all(np.isfinite(found)):
        raise SettingError("--dtype", dtype, f"float32: {name} holds {float(np.max(np.abs(tensor))):.3g}")
    return found
