"""The options of every network that has a name: what :func:`bap_jax.models.build` takes for it, without jax.

Names and defaults are those of the networks' classes, which say more; a test holds one to the other.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bap_jax.runs.options import Options
from bap_jax.runs.parsing import Counts, Numbers, Widths

if TYPE_CHECKING:
    from bap_jax.runs.settings import Settings


@dataclasses.dataclass(frozen=True)
class NetworkOptions(Options):
    """Of every network."""

    mean: Numbers | None = None
    """Mean of each channel of the images, subtracted inside the network, so that radii stay in pixel units: e.g. 0.49,0.48,0.45;
    by default 0."""
    std: Numbers | None = None
    """What each channel is then divided by: e.g. 0.25,0.24,0.26; by default 1."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """What the network computes in: by default float32, the type of the images. Parameters, statistics and logits are float32."""

    SLOT: ClassVar[str] = "model"
    MAY_BE_EMPTY: ClassVar[tuple[str, ...]] = ("hidden",)

    def check(self, run: Settings) -> None:
        super().check(run)
        for name, value in self.values().items():
            if isinstance(value, tuple):
                numbers = [one[1] if isinstance(one, tuple) else one for one in value]
                if name in ("mean", "std"):
                    fits = all(math.isfinite(one) and (name == "mean" or one > 0) for one in numbers)
                    expected = "a finite number for each channel" + (", above 0" if name == "std" else "")
                else:
                    fits, expected = all(one >= 1 for one in numbers), "whole numbers of at least 1"
                self.require(name, fits and (bool(value) or name in self.MAY_BE_EMPTY), expected)


def keywords_of(options: Options) -> dict[str, Any]:
    """The options that depart from the defaults of a network, or that a factory of one's own was given, as
    :func:`bap_jax.models.build` takes them.

    Example:
      >>> keywords_of(LeNet5(widths=(("conv1", 12), ("fc1", 30))))
      {'widths': {'conv1': 12, 'fc1': 30}}
    """
    found = options.changed()
    for name, value in found.items():
        if isinstance(value, tuple) and value and isinstance(value[0], tuple):
            found[name] = dict(value)
    return found


@dataclasses.dataclass(frozen=True)
class _ByLayer(NetworkOptions):
    widths: Widths | None = None
    """Widths of single layers, as compaction leaves them: e.g. conv1=12,fc1=30; the others keep theirs."""


@dataclasses.dataclass(frozen=True)
class MLP(_ByLayer):
    """Dense layers."""

    hidden: Counts = (256, 128)
    """Widths of the hidden layers."""


@dataclasses.dataclass(frozen=True)
class LeNet5(_ByLayer):
    """Two convolutions, two dense layers."""

    hidden: int = 84
    """Width of the dense hidden layer: 1024 in PwoA's LeNet."""

    COUNTS: ClassVar[tuple[str, ...]] = ("hidden",)


@dataclasses.dataclass(frozen=True)
class MerkleCNN(_ByLayer):
    """Two convolutions, three dense layers: LeNet-5 as it was."""


@dataclasses.dataclass(frozen=True)
class FitNet4(_ByLayer):
    """Fifteen convolutions."""


@dataclasses.dataclass(frozen=True)
class _Affine(NetworkOptions):
    affine: bool = True
    """BatchNorm with a scale and a bias to train; else they are 1 and 0."""


@dataclasses.dataclass(frozen=True)
class VGG16(_Affine, _ByLayer):
    """Thirteen convolutions, then dense layers."""

    hidden: Counts = (4096, 4096, 1024)
    """Widths of the dense layers before the last one."""
    hidden_relu: bool = False
    """ReLU after each of these."""
    batch_norm: bool = False
    """Normalise after every convolution."""
    conv_bias: bool = True
    """Convolutions with biases."""
    average: int | None = None
    """Average the last map to so many rows and columns, instead of max-pooling it."""

    COUNTS: ClassVar[tuple[str, ...]] = ("average",)


@dataclasses.dataclass(frozen=True)
class VGG16BN(VGG16):
    """VGG-16 with BatchNorm and one dense layer."""

    hidden: Counts = ()
    batch_norm: bool = True


@dataclasses.dataclass(frozen=True)
class SurveyVGG16(VGG16):
    """VGG-16 as in HYDRA and the survey."""

    hidden: Counts = (256, 256)
    hidden_relu: bool = True
    batch_norm: bool = True
    conv_bias: bool = False
    average: int | None = 2


@dataclasses.dataclass(frozen=True)
class _Stages(_Affine):
    blocks: Counts = (2, 2, 2, 2)
    """Residual blocks in each stage."""
    widths: Counts | Widths = (64, 128, 256, 512)
    """Channels in each stage, e.g. 16,32,64; or of every convolution by its name, as compaction leaves them:
    stem_conv=12,block1/conv1=9,..."""

    def check(self, run: Settings) -> None:
        super().check(run)
        fits = isinstance(self.widths[0], tuple) or len(self.widths) == len(self.blocks)
        self.require("widths", fits, f"{len(self.blocks)} numbers, one for each stage, or the width of every convolution")


@dataclasses.dataclass(frozen=True)
class ResNet18(_Stages):
    """Residual blocks."""

    block: Literal["basic", "bottleneck"] = "basic"
    """The kind of block: two 3x3 convolutions, or a bottleneck of three."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """What stands before the stages: a 3x3 convolution, or a 7x7 one and a max-pool, both of stride 2."""


@dataclasses.dataclass(frozen=True)
class ResNet8(ResNet18):
    """A thin residual network."""

    blocks: Counts = (1, 1, 1)
    widths: Counts | Widths = (16, 32, 64)


@dataclasses.dataclass(frozen=True)
class ResNet34(ResNet18):
    """Residual blocks, 16 of them."""

    blocks: Counts = (3, 4, 6, 3)


@dataclasses.dataclass(frozen=True)
class ResNet50(ResNet34):
    """Bottlenecks, 16 of them."""

    block: Literal["basic", "bottleneck"] = "bottleneck"


@dataclasses.dataclass(frozen=True)
class PreActResNet18(_Stages):
    """Pre-activation residual blocks."""

    final_norm: bool = True
    """BatchNorm and ReLU before the pooling."""
    shortcut: Literal["active", "input"] = "active"
    """What a shortcut's convolution sees: the activated input, or the plain one."""


@dataclasses.dataclass(frozen=True)
class WideResNet(_Affine, _ByLayer):
    """Wide pre-activation residual blocks."""

    depth: int = 28
    """Layers, 6n + 4 of them: 10, 16, 28, 34, ..."""
    width: int = 10
    """The stages have 16, 32 and 64 times this many channels."""
    dropout_rate: float = 0.0
    """Dropout between a block's convolutions, in training."""
    activation: Literal["relu", "silu"] = "relu"
    """Between layers: ReLU, or SiLU, also called Swish."""
    padding: Literal["both", "end"] = "both"
    """Of convolutions of stride 2: on both sides, as in PyTorch; or at the end, as in TensorFlow."""

    COUNTS: ClassVar[tuple[str, ...]] = ("width",)

    def check(self, run: Settings) -> None:
        super().check(run)
        self.require("depth", self.depth >= 10 and self.depth % 6 == 4, "6n + 4 with n ≥ 1, as 10, 16, 28 or 34")
        self.require("dropout_rate", 0 <= self.dropout_rate < 1, "a number in [0, 1)")


@dataclasses.dataclass(frozen=True)
class DMWideResNet(WideResNet):
    """Wide residual blocks as DeepMind's."""

    activation: Literal["relu", "silu"] = "silu"
    padding: Literal["both", "end"] = "end"
