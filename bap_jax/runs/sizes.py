"""How large a network is and how much work one image is: efficiency in real numbers, as every row of an evaluation has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bap_jax.checkpoint import Network
from bap_jax.errors import SettingError
from bap_jax.evaluation import Check
from bap_jax.export import ZEROS, export_network, rounded
from bap_jax.export.packing import file_bytes, pack
from bap_jax.mathematics.masks import compression_ratio
from bap_jax.mathematics.quantize import bit_operations
from bap_jax.models import count_parameters
from bap_jax.models.flops import count_flops
from bap_jax.runs.settings import FLOAT_BITS

COUNTED = "FLOPs of all kernels are counted"


def sizes_of(
    network: Network, predict: Callable, image_shape: tuple[int, ...], weight_bits: int = FLOAT_BITS
) -> tuple[dict[str, Any], Check]:
    """The sizes of a network, and a check on its FLOPs.

    Args:
      network: pruned weights are zero.
      predict: ``((params, model_state), images) -> logits``.
      image_shape: of one image.
      weight_bits: of the kernels' weights; below 32 the files hold them as integers (:func:`bap_jax.export.rounded`).

    Returns:
      The columns, and the check. ``num_parameters``; ``nonzero`` parameters; ``compression_ratio``, prunable over kept weights,
      None where none is kept;
      ``bytes_dense``, the safetensors file of all tensors; ``bytes``, that of the same tensors without their zeros
      (:func:`bap_jax.export.packing.pack`), both files made and measured; ``flops_dense`` and ``flops_sparse`` per image
      (:func:`bap_jax.models.flops.count_flops`), and ``bops_dense`` and ``bops_sparse``, of these the bit operations at
      ``weight_bits`` with activations of 32 (:func:`bap_jax.mathematics.quantize.bit_operations`), None where they cannot be
      counted, and then the check warns.
    """
    exported = export_network(*network, layout="jax")
    tensors = exported.tensors
    if weight_bits != FLOAT_BITS:
        tensors = {name: part for name, part in rounded(exported, bits=weight_bits).items() if not name.endswith(ZEROS)}
    ratio = float(compression_ratio(network.masks))
    sizes: dict[str, Any] = {
        "num_parameters": count_parameters(network.params),
        "nonzero": sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(network.params)),
        "compression_ratio": ratio if math.isfinite(ratio) else None,
        "bytes_dense": file_bytes(tensors),
        "bytes": file_bytes(pack(tensors)),
        "weight_bits": weight_bits,
        **dict.fromkeys(("flops_dense", "flops_sparse", "bops_dense", "bops_sparse")),
    }
    weights = {"params": network.params, "model_state": network.model_state}
    image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    try:
        counted = count_flops(lambda tree, images: predict((tree["params"], tree["model_state"]), images), weights, image)
    except SettingError as error:
        return sizes, Check(COUNTED, "warned", f"not counted: it has {error.value}", f"{error.expected}; the columns are empty")
    for which, flops in (("dense", counted.dense), ("sparse", counted.sparse)):
        sizes |= {f"flops_{which}": flops, f"bops_{which}": bit_operations(flops, weight_bits=weight_bits)}
    told = f"{counted.dense:,} per image, {counted.sparse:,} without zero weights"
    if counted.uncounted:
        left_out = f"{told}, and what {', '.join(counted.uncounted)} take part in is not in them"
        return sizes, Check(COUNTED, "warned", left_out, "these kernels are in no convolution or matrix product")
    return sizes, Check(COUNTED, "passed", told, "")
