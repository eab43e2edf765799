"""Models: the networks of the experiments, and adapters that bring any Linen, NNX or plain JAX network into one convention."""

from bap_jax.models.adapters import as_model, from_function, from_linen, from_nnx
from bap_jax.models.conv import conv_layer, fast_conv, max_pool
from bap_jax.models.fitnet import FitNet4
from bap_jax.models.lenet import LeNet5
from bap_jax.models.mlp import MLP
from bap_jax.models.registry import NETWORKS, build, count_parameters
from bap_jax.models.resnet import ResidualBlock, ResNet, ResNet8, ResNet18, WideBlock, WideResNet
from bap_jax.models.vgg import VGG16

__all__ = [
    "MLP",
    "NETWORKS",
    "VGG16",
    "FitNet4",
    "LeNet5",
    "ResNet",
    "ResNet8",
    "ResNet18",
    "ResidualBlock",
    "WideBlock",
    "WideResNet",
    "as_model",
    "build",
    "conv_layer",
    "count_parameters",
    "fast_conv",
    "from_function",
    "from_linen",
    "from_nnx",
    "max_pool",
]
