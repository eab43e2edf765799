"""Models: the networks of the experiments, and adapters that bring any Linen, NNX or plain JAX network into one convention."""

from bap_jax.models.adapters import as_model, fast_model, from_function, from_linen, from_nnx, two_class
from bap_jax.models.conv import average_pool, conv_layer, fast_conv, max_pool, max_pool_3x3, mean_pool
from bap_jax.models.fitnet import FitNet4
from bap_jax.models.lenet import LeNet5
from bap_jax.models.merkle_cnn import MerkleCNN
from bap_jax.models.mlp import MLP
from bap_jax.models.preact_resnet import PreActBlock, PreActResNet18
from bap_jax.models.registry import NETWORKS, build, count_parameters
from bap_jax.models.resnet import BottleneckBlock, ResidualBlock, ResNet, ResNet8, ResNet18, ResNet34, ResNet50
from bap_jax.models.vgg import VGG16, VGG16BN, SurveyVGG16
from bap_jax.models.wide_resnet import DMWideResNet, WideBlock, WideResNet

__all__ = [
    "MLP",
    "NETWORKS",
    "VGG16",
    "VGG16BN",
    "BottleneckBlock",
    "DMWideResNet",
    "FitNet4",
    "LeNet5",
    "MerkleCNN",
    "PreActBlock",
    "PreActResNet18",
    "ResNet",
    "ResNet8",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResidualBlock",
    "SurveyVGG16",
    "WideBlock",
    "WideResNet",
    "as_model",
    "average_pool",
    "build",
    "conv_layer",
    "count_parameters",
    "fast_conv",
    "fast_model",
    "from_function",
    "from_linen",
    "from_nnx",
    "max_pool",
    "max_pool_3x3",
    "mean_pool",
    "two_class",
]
