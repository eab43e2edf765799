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
from bap_jax.export import export_network
from bap_jax.export.packing import file_bytes, pack
from bap_jax.mathematics.masks import compression_ratio
from bap_jax.models import count_parameters
from bap_jax.models.flops import count_flops

COUNTED = "FLOPs of all kernels are counted"


def sizes_of(network: Network, predict: Callable, image_shape: tuple[int, ...]) -> tuple[dict[str, Any], Check]:
    """The sizes of a network, and a check on its FLOPs.

    Args:
      network: pruned weights are zero.
      predict: ``((params, model_state), images) -> logits``.
      image_shape: of one image.

    Returns:
      The columns, and the check. ``num_parameters``; ``nonzero`` parameters; ``compression_ratio``, prunable over kept weights,
      None where none is kept;
      ``bytes_dense``, the safetensors file of all tensors; ``bytes``, that of the same tensors without their zeros
      (:func:`bap_jax.export.packing.pack`), both files made and measured; ``flops_dense`` and ``flops_sparse`` per image
      (:func:`bap_jax.models.flops.count_flops`), None where they cannot be counted, and then the check warns.
    """
    tensors = export_network(*network, layout="jax").tensors
    ratio = float(compression_ratio(network.masks))
    sizes: dict[str, Any] = {
        "num_parameters": count_parameters(network.params),
        "nonzero": sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(network.params)),
        "compression_ratio": ratio if math.isfinite(ratio) else None,
        "bytes_dense": file_bytes(tensors),
        "bytes": file_bytes(pack(tensors)),
        "flops_dense": None,
        "flops_sparse": None,
    }
    weights = {"params": network.params, "model_state": network.model_state}
    image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    try:
        counted = count_flops(lambda tree, images: predict((tree["params"], tree["model_state"]), images), weights, image)
    except SettingError as error:
        return sizes, Check(COUNTED, "warned", f"not counted: it has {error.value}", f"{error.expected}; the columns are empty")
    sizes |= {"flops_dense": counted.dense, "flops_sparse": counted.sparse}
    told = f"{counted.dense:,} per image, {counted.sparse:,} without zero weights"
    if counted.uncounted:
        left_out = f"{told}, and what {', '.join(counted.uncounted)} take part in is not in them"
        return sizes, Check(COUNTED, "warned", left_out, "these kernels are in no convolution or matrix product")
    return sizes, Check(COUNTED, "passed", told, "")
