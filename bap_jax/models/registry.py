"""Networks by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from bap_jax.errors import SettingError
from bap_jax.mathematics.convolution import Conv, conv_kind
from bap_jax.mathematics.fast import fast
from bap_jax.models.adapters import from_linen
from bap_jax.models.fitnet import FitNet4
from bap_jax.models.layers import BATCH_NORM_EPSILON
from bap_jax.models.lenet import LeNet5
from bap_jax.models.merkle_cnn import MerkleCNN
from bap_jax.models.mlp import MLP
from bap_jax.models.preact_resnet import PreActResNet18
from bap_jax.models.resnet import ResNet8, ResNet18, ResNet34, ResNet50
from bap_jax.models.vgg import VGG16, VGG16BN, SurveyVGG16
from bap_jax.models.wide_resnet import DMWideResNet, WideResNet
from bap_jax.plugins import import_object, is_import_path
from bap_jax.types import About, Model, Params

NETWORKS: dict[str, type[nn.Module]] = {
    "mlp": MLP,
    "lenet5": LeNet5,
    "merkle_cnn": MerkleCNN,
    "fitnet4": FitNet4,
    "vgg16": VGG16,
    "vgg16_bn": VGG16BN,
    "vgg16_survey": SurveyVGG16,
    "resnet8": ResNet8,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "preactresnet18": PreActResNet18,
    "wideresnet": WideResNet,
    "dm_wideresnet": DMWideResNet,
}


def build(
    name: str,
    *,
    num_classes: int,
    conv: Conv = "auto",
    axis_name: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **options: Any,
) -> Model:
    """A network by its name, or by that of a factory.

    Args:
      name: one of ``mlp``, ``lenet5``, ``merkle_cnn``, ``fitnet4``, ``vgg16``, ``vgg16_bn``, ``vgg16_survey``, ``resnet8``,
        ``resnet18``, ``resnet34``, ``resnet50``, ``preactresnet18``, ``wideresnet``, ``dm_wideresnet``; or
        ``package.module:factory``, a function that is called with this function's keywords (``conv`` already decided) and returns
        a :class:`bap_jax.types.Model` or a Linen module.
      num_classes: K.
      conv: the form of the convolutions: ``"fast"`` (:func:`bap_jax.models.fast_conv`), ``"plain"``, or ``"auto"``: fast if JAX's
        default backend is the CPU (see :func:`bap_jax.mathematics.convolution.conv_kind`). With ``"fast"`` the network of a
        factory has its convolutions replaced (:func:`bap_jax.fast`), whatever the factory makes of the word.
      axis_name: under ``jax.pmap`` or ``jax.shard_map``, the mapped axis that the batch is split over.
      mean: of each channel of the input, subtracted inside the network; None for 0.
      std: of each channel of the input, divided by inside the network; None for 1.
      **options: of the network: see its class.

    Returns:
      Model: ``init`` and ``apply``, both jittable; ``about`` is what a factory says, if anything. Initialise inside one jit:
        ``jax.jit(model.init)(key, images)``.

    Raises:
      SettingError: an unknown name or option, a factory that cannot be found or returns something else.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = build("mlp", num_classes=10, hidden=(32,))
      >>> params, model_state = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
      >>> count_parameters(params)
      2410
    """
    if not isinstance(num_classes, int) or num_classes < 2:
        raise SettingError("num_classes", num_classes, "an integer ≥ 2")
    kind = conv_kind(conv)
    settings = {"num_classes": num_classes, "conv": kind, "axis_name": axis_name, "mean": _tuple(mean), "std": _tuple(std)}
    settings |= {option: _tuple(value) for option, value in options.items()}
    if is_import_path(name):
        model = _model(name, import_object("model", name)(**settings))
        return model._replace(apply=fast(model.apply)) if kind == "fast" else model
    if name not in NETWORKS:
        raise SettingError("model", name, f"one of {', '.join(NETWORKS)}, or package.module:factory")
    network = NETWORKS[name]
    _check_options(name, network, options)
    module = network(**settings)
    epsilon = BATCH_NORM_EPSILON if getattr(module, "batch_norm", False) else None
    return from_linen(module)._replace(about=About(settings["mean"], settings["std"], epsilon, num_classes))


def _tuple(value: Any) -> Any:
    """Linen modules are hashed, so lists become tuples."""
    return tuple(value) if isinstance(value, list) else value


def _check_options(name: str, network: type[nn.Module], options: dict[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(network)} - {
        "parent",
        "name",
        "num_classes",
        "conv",
        "axis_name",
        "mean",
        "std",
    }
    for option, value in options.items():
        if option not in known:
            raise SettingError(option, value, f"an option that {name} has: {', '.join(sorted(known))}")


def _model(name: str, made: Any) -> Model:
    if isinstance(made, Model):
        return made
    if isinstance(made, nn.Module):
        return from_linen(made)
    raise SettingError("model", name, f"a factory that returns a bap_jax Model or a Linen module, not {type(made).__name__}")


def count_parameters(params: Params) -> int:
    """The number of parameters in a pytree of arrays (or of their shapes, from ``jax.eval_shape``).

    Example:
      >>> import jax.numpy as jnp
      >>> count_parameters({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
      9
    """
    return sum(leaf.size for leaf in jax.tree.leaves(params))
