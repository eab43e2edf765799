"""The mean and std by which a stored network normalises its input, where a module of the file does so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

_MEANS, _STDS = ("mean", "mu", "means", "_mean"), ("std", "sigma", "stds", "_std")  # buffers of modules that normalise images


class FoundNormalisation(NamedTuple):
    """What the buffers of a file say."""

    settings: dict[str, tuple[float, ...]]  # "mean", "std": those that are there, one number for each channel
    names: dict[str, str]  # the buffers, and which of the two each is


def normalisation_in(tensors: Mapping[str, np.ndarray], channels: int, known: Collection[str] = ()) -> FoundNormalisation:
    """Reads the mean and std of a module that normalises images: buffers ``mean`` and ``std``, ``mu`` and ``sigma``.

    ``settings`` are keywords of :func:`bap_jax.models.build`: a network that is built with them does what the module did.

    Args:
      tensors: by name, as :func:`bap_jax.export.read_tensors` returns them.
      channels: of an image. A buffer has one number, or one for each channel.
      known: names of tensors of the network itself, which are not looked at.

    Returns:
      A :class:`FoundNormalisation`, empty where there is no such buffer.

    Example:
      >>> found = normalisation_in({"0.mean": np.full((3, 1, 1), 0.5, np.float32), "fc.weight": np.ones((2, 2))}, channels=3)
      >>> found.settings, found.names
      ({'mean': (0.5, 0.5, 0.5)}, {'0.mean': 'mean'})
    """
    settings: dict[str, tuple[float, ...]] = {}
    names: dict[str, str] = {}
    for name, tensor in tensors.items():
        last = name.split(".")[-1]
        which = "mean" if last in _MEANS else "std" if last in _STDS else None
        if which is None or name in known or tensor.size not in (1, channels) or not jnp.issubdtype(tensor.dtype, jnp.floating):
            continue
        settings[which] = tuple(float(f"{value:.7g}") for value in np.broadcast_to(tensor.astype(np.float64).ravel(), channels))
        names[name] = which
    return FoundNormalisation(settings, names)
