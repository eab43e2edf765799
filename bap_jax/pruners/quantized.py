"""Quantisation-aware training with any pruning method: the network computes with rounded weights, the exact ones are trained."""

from __future__ import annotations

import jax

from bap_jax.mathematics.masks import Prunable, kernels, leaf_paths
from bap_jax.mathematics.quantize import fake_quantize
from bap_jax.types import Params, Pruner, PyTree


def quantized(pruner: Pruner, *, bits: int = 8, prunable: Prunable = kernels) -> Pruner:
    """The same pruner, of a network whose kernels are integers times a scale for each output channel.

    In every forward pass, attacks included, a kernel is what :func:`bap_jax.mathematics.quantize.fake_quantize` makes of it; its
    gradient goes straight through the rounding to the weights that are trained, and on to the pruner. Zeros stay zero. What the
    pruner leaves is rounded likewise, so that a checkpoint's network is the quantised one.

    Args:
      pruner: any.
      bits: of a weight, 2 to 8.
      prunable: which leaves are rounded; by default kernels, and never biases or BatchNorm.

    Returns:
      A :class:`bap_jax.types.Pruner` with the state of ``pruner``.

    Raises:
      SettingError: ``bits`` out of range, once a kernel is rounded.

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.pruners import dense
      >>> pruner = quantized(dense(), bits=2)
      >>> weights, state = pruner.init(jax.random.key(0), {"kernel": jnp.array([[0.4, 0.6], [-1.0, 1.0]])})
      >>> pruner.effective(weights, state)["kernel"].tolist(), weights["kernel"][0].tolist()
      ([[0.0, 1.0], [-1.0, 1.0]], [0.4000000059604645, 0.6000000238418579])

    References:
      Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"; Gui et
      al. 2019, "Model Compression with Adversarial Robustness", which prunes, quantises and trains under attack at once.
    """

    def of_leaves(params: Params) -> Params:
        leaves, structure = jax.tree.flatten(params)
        paths = leaf_paths(params)
        found = [
            fake_quantize(leaf, bits=bits) if prunable(path, leaf) else leaf for path, leaf in zip(paths, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, found)

    def effective(trainable: PyTree, state: PyTree) -> Params:
        return of_leaves(pruner.effective(trainable, state))

    def finish(trainable: PyTree, state: PyTree) -> tuple[Params, PyTree]:
        params, masks = pruner.finish(trainable, state)
        return of_leaves(params), masks

    return pruner._replace(effective=effective, finish=finish)
