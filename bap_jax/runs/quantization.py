"""A run's network with its kernels rounded to small integers, as a run of its own: post-training quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bap_jax.atomic import json_text, write_atomic
from bap_jax.checkpoint import Checkpoints, check_run, open_run
from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import kernels, leaf_paths
from bap_jax.mathematics.quantize import fake_quantize
from bap_jax.runs.datasets import example_of
from bap_jax.runs.restore import stored_network
from bap_jax.runs.settings import FLOAT_BITS, Settings
from bap_jax.runs.sizes import sizes_of
from bap_jax.runs.trust import NOTHING, Trust, code_in, remember
from bap_jax.types import Params

RECORD = "quantize.json"


class Quantised(NamedTuple):
    """What came of it."""

    out: Path
    record: dict[str, Any]  # what quantize.json holds: bits, sizes before and after, how far weights moved


def quantize_run(
    run: Path,
    *,
    out: Path | None = None,
    bits: int = 8,
    checkpoint: str = "last",
    data_dir: str | None = None,
    trust: Trust = NOTHING,
) -> Quantised:
    """Rounds the kernels of a run's network to integers with a scale for each output channel, and writes a run of what is left.

    Nothing is trained. The new run computes with the rounded weights as floats, so it is evaluated, attacked and exported like
    any other; its rows say its bits.

    Args:
      run: a run folder.
      out: the new run folder, absent or empty; by default the run's name with ``-int8`` (the bits) behind it.
      bits: of a weight, 2 to 8.
      checkpoint: ``last``, ``best``, ``ema`` or a step.
      data_dir: where prepared data sets are, if not where the run found them; one example is read, for the images' shape.
      trust: which code the run's configuration may name.

    Returns:
      See :class:`Quantised`.

    Raises:
      SettingError: no such run or checkpoint, bits out of range, a network that is quantised already, or an occupied folder.
      CheckpointError: the checkpoint is damaged, or not of the run's model.
    """
    if not 2 <= bits <= 8:
        raise SettingError("--bits", bits, "a whole number from 2 to 8")
    stored = stored_network(run, checkpoint, trust)
    settings = stored.settings
    if settings.deployed_bits() != FLOAT_BITS:
        raise SettingError("RUN", str(run), f"a network of floats; the weights of this one have {settings.deployed_bits()} bits")
    own = Path(run).resolve()
    out = own.with_name(f"{own.name}-int{bits}") if out is None else Path(out)
    told = _rounded(settings, bits)
    check_run(out, told.as_dict())
    net = stored.on(example_of(settings, data_dir))
    network = net.network._replace(params=_on_kernels(net.params, bits))
    before, _ = sizes_of(net.network, net.predict, net.image_shape)
    after, _ = sizes_of(network, net.predict, net.image_shape, bits)
    pairs = list(zip(jax.tree.leaves(net.params), jax.tree.leaves(network.params), strict=True))
    record = {
        "run": str(run),
        "step": stored.step,
        "bits": bits,
        "before": before,
        "after": after,
        "moved": max(float(np.max(np.abs(np.asarray(old) - new), initial=0)) for old, new in pairs),
        "to_zero": sum(int(np.count_nonzero(np.asarray(old))) - int(np.count_nonzero(new)) for old, new in pairs),
    }
    with open_run(out, told.as_dict()) as folder, Checkpoints(folder.checkpoints) as checkpoints:
        metadata = {name: value for name, value in stored.about.items() if name != "metric"} | {"quantized_of": str(run)}
        checkpoints.save(stored.step, {"step": np.int32(stored.step)}, network=network, metadata=metadata)
        checkpoints.restore_network()  # nothing is said to be there that cannot be read back
        write_atomic(Path(out) / RECORD, json_text(record, indent=1) + "\n")
        remember(out, code_in(told.as_dict()).values())
    return Quantised(out, record)


def _on_kernels(params: Params, bits: int) -> Params:
    paths = leaf_paths(params)

    def rounded(leaves: list[Any]) -> list[Any]:
        pairs = zip(paths, leaves, strict=True)
        return [fake_quantize(leaf, bits=bits) if kernels(path, leaf) else leaf for path, leaf in pairs]

    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [np.asarray(leaf) for leaf in jax.jit(rounded)(leaves)])


def _rounded(settings: Settings, bits: int) -> Settings:
    """The settings of the run, whose network has so many bits; the bits of a phase of its own count before the run's."""
    phases = {phase: {name: value for name, value in told if name != "weight_bits"} for phase, told in settings.phases}
    return settings.changed(weight_bits=bits, phases=phases)
