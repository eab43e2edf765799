"""Pre-activation residual networks in the form common for CIFAR: PreActResNet-18."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.models._blocks import ONE, given, plan
from bap_jax.models.conv import ConvKind, conv_layer
from bap_jax.models.layers import batch_norm, check_pictures, kaiming, normalize_pixels
from bap_jax.types import Array, Outputs

Shortcut = Literal["active", "input"]


class PreActBlock(nn.Module):
    """BN, ReLU, conv3×3, BN, ReLU, conv3×3, plus the input, or a 1×1 convolution where the shape changes.

    That convolution works on the input after its BN and ReLU (``shortcut="active"``), or before them (``"input"``).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> block = PreActBlock(features=4, strides=2)
      >>> jax.eval_shape(block.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))[0].shape
      (2, 4, 4, 4)
    """

    features: int
    strides: int = 1
    shortcut: Shortcut = "active"
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None
    affine: bool = True
    inner: int | None = None  # channels between the convolutions, default as many as come out
    projects: bool | None = None  # a convolution on the shortcut, default where the shape changes

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        conv = partial(conv_layer, conv=self.conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        inner, outer = self.features if self.inner is None else self.inner, self.features
        norm = partial(batch_norm, train, self.axis_name, self.dtype, affine=self.affine)
        active = nn.relu(norm("bn1")(images))
        x = nn.relu(norm("bn2")(conv(inner, 3, strides=self.strides, padding=ONE, name="conv1")(active)))
        x = conv(outer, 3, padding=ONE, name="conv2")(x)
        changes = self.strides != 1 or images.shape[-1] != outer
        if changes if self.projects is None else self.projects:
            seen = active if self.shortcut == "active" else images
            images = conv(outer, 1, strides=self.strides, padding="VALID", name="shortcut_conv")(seen)
        return x + images


class PreActResNet18(nn.Module):
    """3×3 stem, four stages of two pre-activation blocks, BN, ReLU, global average pool, fc-K (11,172,170 parameters for RGB and
    10 classes).

    Taps: ``stem``, ``block1``, ``block2``, ... and ``pooled``.

    Two things differ between the published forms. Whether BN and ReLU stand before the pooling (as in the paper, and in the code
    of robust overfitting) or nothing does (kuangliu/pytorch-cifar): the weights tell. Whether a shortcut's convolution sees the
    activated input (the paper, both codes) or the plain one (some networks of RobustBench): the weights do *not* tell.

    Args:
      num_classes: K.
      blocks: residual blocks in each stage.
      widths: channels in each stage; the stem has the first. Or of every convolution by its name, as for
        :class:`bap_jax.models.ResNet`.
      final_norm: BN and ReLU before the pooling.
      shortcut: ``"active"`` or ``"input"``, what a shortcut's convolution sees.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: mapped axis over which BatchNorm takes its statistics, or None.
      dtype: of the computation, default that of the images; parameters, BatchNorm statistics and logits are float32.
      affine: BatchNorm with a scale and a bias to train; else they are 1 and 0.

    Raises:
      SettingError: not one width for each stage, an unknown shortcut, or images that are no pictures.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = PreActResNet18(num_classes=10, blocks=(1, 1), widths=(4, 8))
      >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))
      >>> sorted(outputs.taps), outputs.taps["pooled"].shape
      (['block1', 'block2', 'pooled', 'stem'], (2, 8))

    References:
      He et al. 2016, "Identity Mappings in Deep Residual Networks"; Rice et al. 2020, "Overfitting in adversarially robust deep
      learning" (public code: locuslab/robust_overfitting).
    """

    batch_norm: ClassVar[bool] = True
    num_classes: int
    blocks: Sequence[int] = (2, 2, 2, 2)
    widths: Sequence[int] | Mapping[str, int] = (64, 128, 256, 512)
    final_norm: bool = True
    shortcut: Shortcut = "active"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None
    affine: bool = True

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        if self.shortcut not in ("active", "input"):
            raise SettingError("shortcut", self.shortcut, "'active' or 'input'")
        check_pictures(images)
        x = normalize_pixels(images, self.mean, self.std)
        if isinstance(self.widths, Mapping):
            first, blocks = given("stem_conv", self.blocks, self.widths)
        else:
            first, blocks = self.widths[0], plan(self.blocks, self.widths)
        options = {"conv": self.conv, "use_bias": False, "kernel_init": kaiming, "dtype": self.dtype}
        x = conv_layer(first, 3, padding=ONE, name="stem_conv", **options)(x)
        taps = {"stem": x}
        for sizes in blocks:
            name = f"block{len(taps)}"
            settings = (self.shortcut, self.conv, self.axis_name, self.dtype, self.affine)
            block = PreActBlock(sizes.features, sizes.strides, *settings, sizes.inner, sizes.projects, name=name)
            x = taps[name] = block(x, train=train)
        if self.final_norm:
            x = nn.relu(batch_norm(train, self.axis_name, self.dtype, "bn", affine=self.affine)(x))
        x = taps["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)
