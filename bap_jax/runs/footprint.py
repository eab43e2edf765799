"""What networks cost side by side: their sizes, the memory that a batch takes, and measured latency."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.parallel import cores
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.sizes import sizes_of
from bap_jax.timing import Timed, calls_for, in_turn, median, ratio, sample

BATCHES = (1, 128)
LEAST_SECONDS = 0.05  # of a sample: shorter calls are repeated


def footprints(
    nets: Mapping[str, Deployed],
    *,
    batches: tuple[int, ...] = BATCHES,
    rounds: int = 7,
    told: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """The footprint of each network, all timed in turn.

    Args:
      nets: by name; the first is what ratios are over.
      batches: images at once.
      rounds: samples of each latency; 0 times nothing.
      told: what is being done, now and then.

    Returns:
      For each name the columns of :func:`bap_jax.runs.sizes.sizes_of`, and by the size of the batch, as a text: ``memory``, the
      bytes of arguments, results and what lies between them, as XLA lays them out; ``seconds``, the median of a forward pass on
      the default device; ``ratio``, of the seconds over the first network's, round by round: median, low, high; ``processor``,
      the same of processor time, which other work on the machine hardly changes and which says nothing on an accelerator.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, net in nets.items():
        columns, _ = sizes_of(net.network, net.predict, net.image_shape)
        found[name] = columns | {"memory": {}, "seconds": {}, "ratio": {}, "processor": {}}
    for batch in batches:
        if told:
            told(f"timing batches of {batch}")
        timed: dict[str, Timed] = {}
        for name, net in nets.items():
            images = jnp.asarray(np.random.default_rng(0).uniform(size=(batch, *net.image_shape)), jnp.float32)
            compiled = jax.jit(net.predict).lower(net.weights, images).compile()
            found[name]["memory"][str(batch)] = _memory(compiled)
            if rounds:
                timed[name] = _timed(compiled, net.weights, images)
        samples = in_turn(timed, rounds)
        for name in timed:
            found[name]["seconds"][str(batch)] = median(samples[name])
            for column, clock in (("ratio", "wall"), ("processor", "processor")):
                apart = ratio(samples[name], samples[next(iter(timed))], clock)
                found[name][column][str(batch)] = apart._asdict()
    return found


def measured_on() -> dict[str, Any]:
    """What latency was measured on, and how busy that was."""
    device = jax.devices()[0]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"device": device.device_kind, "platform": device.platform, "cores": cores(), "load": load, "jax": jax.__version__}


def _memory(compiled: Any) -> int | None:
    planned = compiled.memory_analysis()
    if planned is None:
        return None
    sizes = (planned.argument_size_in_bytes, planned.output_size_in_bytes, planned.temp_size_in_bytes)
    return sum(sizes) - planned.alias_size_in_bytes


def _timed(compiled: Callable, weights: Any, images: jax.Array) -> Timed:
    call = lambda: jax.block_until_ready(compiled(weights, images))  # noqa: E731
    call()
    calls = calls_for(sample(call).wall, at_least=LEAST_SECONDS)
    return lambda: sample(call, calls)
