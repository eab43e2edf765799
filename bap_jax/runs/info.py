"""What the slots of a phase are told about it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bap_jax.data import Source, steps_per_epoch
from bap_jax.errors import SettingError
from bap_jax.types import Model, Network, RunInfo


def run_info(
    model: Model, dataset: Source, *, num_steps: int, batch_size: int, networks: Mapping[str, Network] = MappingProxyType({})
) -> RunInfo:
    """What the slots are told, of a model and the data that it is trained on.

    Args:
      model: see :class:`bap_jax.types.Model`.
      dataset: the training data; its size, shapes, classes and bounds are read, no image.
      num_steps: how many steps the phase has, at least 1.
      batch_size: examples in a batch.
      networks: those that a slot may ask for by name: ``start``, and each finished phase's.

    Returns:
      A :class:`bap_jax.types.RunInfo`.

    Raises:
      SettingError: fewer than one step; a batch size below 1 or larger than the data set.

    Example:
      >>> import numpy as np
      >>> import bap_jax as bap
      >>> dataset = bap.data.Dataset(np.zeros((100, 2, 2, 1), np.float32), np.arange(100) % 3, num_classes=3)
      >>> info = run_info(bap.models.build("mlp", num_classes=3), dataset, num_steps=500, batch_size=32)
      >>> info.num_examples, info.image_shape, info.steps_per_epoch, info.num_steps
      (100, (2, 2, 1), 3, 500)
    """
    if num_steps < 1:
        raise SettingError("num_steps", num_steps, "a whole number of at least 1")
    return RunInfo(
        apply=model.apply,
        num_classes=dataset.num_classes,
        bounds=dataset.bounds,
        image_shape=dataset.image_shape,
        num_examples=len(dataset),
        steps_per_epoch=steps_per_epoch(len(dataset), batch_size),
        num_steps=num_steps,
        networks=networks,
        init=model.init,
    )
