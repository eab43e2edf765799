"""Residual networks, in the forms common for CIFAR and for ImageNet: ResNet-8, -18, -34 and -50."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.models._blocks import ONE, given, plan
from bap_jax.models.conv import ConvKind, conv_layer, max_pool_3x3
from bap_jax.models.layers import batch_norm, check_pictures, kaiming, normalize_pixels
from bap_jax.types import Array, Outputs

BlockKind = Literal["basic", "bottleneck"]
Stem = Literal["cifar", "imagenet"]


class ResidualBlock(nn.Module):
    """conv3×3, BN, ReLU, conv3×3, BN, plus the input (1×1 convolution and BN where the shape changes), ReLU.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> block = ResidualBlock(features=4, strides=2)
      >>> jax.eval_shape(block.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))[0].shape
      (2, 4, 4, 4)
    """

    features: int
    strides: int = 1
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
        x = nn.relu(norm("bn1")(conv(inner, 3, strides=self.strides, padding=ONE, name="conv1")(images)))
        x = norm("bn2")(conv(outer, 3, padding=ONE, name="conv2")(x))
        changes = self.strides != 1 or images.shape[-1] != outer
        if changes if self.projects is None else self.projects:
            images = norm("shortcut_bn")(conv(outer, 1, strides=self.strides, padding="VALID", name="shortcut_conv")(images))
        return nn.relu(x + images)


class BottleneckBlock(nn.Module):
    """conv1×1, BN, ReLU, conv3×3, BN, ReLU, conv1×1 to four times the channels, BN, plus the input as in a basic block, ReLU.

    The stride is that of the 3×3 convolution, as in PyTorch's networks (the paper has it in the first 1×1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> block = BottleneckBlock(features=4, strides=2)
      >>> jax.eval_shape(block.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))[0].shape
      (2, 4, 4, 16)
    """

    features: int
    strides: int = 1
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None
    affine: bool = True

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        conv = partial(conv_layer, conv=self.conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        norm = partial(batch_norm, train, self.axis_name, self.dtype, affine=self.affine)
        wide = 4 * self.features
        x = nn.relu(norm("bn1")(conv(self.features, 1, padding="VALID", name="conv1")(images)))
        x = nn.relu(norm("bn2")(conv(self.features, 3, strides=self.strides, padding=ONE, name="conv2")(x)))
        x = norm("bn3")(conv(wide, 1, padding="VALID", name="conv3")(x))
        if self.strides != 1 or images.shape[-1] != wide:
            images = norm("shortcut_bn")(conv(wide, 1, strides=self.strides, padding="VALID", name="shortcut_conv")(images))
        return nn.relu(x + images)


class ResNet(nn.Module):
    """Stem, stages of residual blocks (every stage after the first halves the map), global average pool, fc-K.

    Taps: ``stem``, ``block1``, ``block2``, ... and ``pooled``, those that PwoA uses.

    Args:
      num_classes: K.
      blocks: residual blocks in each stage.
      widths: channels in each stage (a bottleneck's end has four times as many); the stem has the first. Or, with basic blocks,
        of every convolution by its name, as compaction leaves them: ``{"stem_conv": 12, "block1/conv1": 9, "block1/conv2": 12,
        ...}``, with ``"block2/shortcut_conv"`` where there is one.
      block: ``"basic"``, two 3×3 convolutions, or ``"bottleneck"``, see :class:`BottleneckBlock`.
      stem: ``"cifar"``, a 3×3 convolution; or ``"imagenet"``, a 7×7 one of stride 2 and a 3×3 max-pool of stride 2.
      mean: subtracted from each channel of the input, or None.
      std: each channel is then divided by it, or None.
      conv: ``"plain"`` or ``"fast"``, see :func:`bap_jax.models.conv.fast_conv`.
      axis_name: mapped axis over which BatchNorm takes its statistics, or None.
      dtype: of the computation, default that of the images; parameters, BatchNorm statistics and logits are float32.
      affine: BatchNorm with a scale and a bias to train; else they are 1 and 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = ResNet(num_classes=10, blocks=(1, 1), widths=(4, 8))
      >>> outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))
      >>> sorted(outputs.taps), outputs.taps["pooled"].shape
      (['block1', 'block2', 'pooled', 'stem'], (2, 8))

    Raises:
      SettingError: not one width for each stage, an unknown block or stem, or images that are no pictures.

    References:
      He et al. 2016, "Deep Residual Learning for Image Recognition"; the CIFAR form of kuangliu/pytorch-cifar, the ImageNet form
      of torchvision.
    """

    batch_norm: ClassVar[bool] = True
    num_classes: int
    blocks: Sequence[int] = (2, 2, 2, 2)
    widths: Sequence[int] | Mapping[str, int] = (64, 128, 256, 512)
    block: BlockKind = "basic"
    stem: Stem = "cifar"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    conv: ConvKind = "plain"
    axis_name: str | None = None
    dtype: Any = None
    affine: bool = True

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Outputs:
        if self.block not in _BLOCKS:
            raise SettingError("block", self.block, " or ".join(map(repr, _BLOCKS)))
        if self.stem not in _STEMS:
            raise SettingError("stem", self.stem, " or ".join(map(repr, _STEMS)))
        check_pictures(images)
        if not isinstance(self.widths, Mapping):
            first, blocks = self.widths[0], plan(self.blocks, self.widths)
        elif self.block == "bottleneck":
            raise SettingError("widths", dict(self.widths), "one number for each stage: single layers only of basic blocks")
        else:
            first, blocks = given("stem_conv", self.blocks, self.widths)
        x = normalize_pixels(images, self.mean, self.std)
        size, strides, padding = _STEMS[self.stem]
        stem = conv_layer(
            first,
            size,
            conv=self.conv,
            strides=strides,
            padding=padding,
            use_bias=False,
            kernel_init=kaiming,
            dtype=self.dtype,
            name="stem_conv",
        )
        x = nn.relu(batch_norm(train, self.axis_name, self.dtype, "stem_bn", affine=self.affine)(stem(x)))
        if self.stem == "imagenet":
            x = max_pool_3x3(x)
        taps = {"stem": x}
        for sizes in blocks:
            name = f"block{len(taps)}"
            own = {"inner": sizes.inner, "projects": sizes.projects} if self.block == "basic" else {}
            settings = (sizes.features, sizes.strides, self.conv, self.axis_name, self.dtype, self.affine)
            block = _BLOCKS[self.block](*settings, **own, name=name)
            x = taps[name] = block(x, train=train)
        x = taps["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return Outputs(logits.astype(jnp.float32), taps)


class ResNet8(ResNet):
    """The thin residual network: stages of 16, 32 and 64 channels, one block each (78,042 parameters for RGB and 10 classes).

    Example:
      >>> ResNet8(num_classes=10).widths
      (16, 32, 64)
    """

    blocks: Sequence[int] = (1, 1, 1)
    widths: Sequence[int] | Mapping[str, int] = (16, 32, 64)


class ResNet18(ResNet):
    """ResNet-18 with a 3×3 stem and no pooling before the stages (11,173,962 parameters for RGB and 10 classes).

    Example:
      >>> ResNet18(num_classes=10).blocks
      (2, 2, 2, 2)
    """


class ResNet34(ResNet):
    """ResNet-34: 3, 4, 6 and 3 basic blocks (21,282,122 parameters for RGB and 10 classes with the CIFAR stem).

    Example:
      >>> ResNet34(num_classes=10).blocks
      (3, 4, 6, 3)
    """

    blocks: Sequence[int] = (3, 4, 6, 3)


class ResNet50(ResNet):
    """ResNet-50: 3, 4, 6 and 3 bottlenecks (23,520,842 parameters for RGB and 10 classes with the CIFAR stem).

    Example:
      >>> ResNet50(num_classes=10).block
      'bottleneck'
    """

    blocks: Sequence[int] = (3, 4, 6, 3)
    block: BlockKind = "bottleneck"


_BLOCKS: dict[str, type[nn.Module]] = {"basic": ResidualBlock, "bottleneck": BottleneckBlock}
_STEMS = {"cifar": (3, 1, ONE), "imagenet": (7, 2, ((3, 3), (3, 3)))}  # kernel, stride, padding
