"""The share of what a device can do that a step makes use of."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bap_jax.bench.step import network, read_data
from bap_jax.runs.settings import Settings
from bap_jax.timing import sample

MATMUL, MATMUL_ON_CPU = 4096, 1024  # rows of the matrices whose product is timed


def model_flops(settings: Settings, forward: float) -> float:
    """Floating-point operations of a blind step, counted as is usual in quoting a model's utilisation.

    With F for one evaluation of the network on the batch: an attack step is 2 F (forward, and back to the images), training on
    the clean and the attacked images 6 F, the search an attack step and an evaluation for each bisection, with linear halving
    another for the far end.

    Example:
      >>> model_flops(Settings(attack_steps=7, num_bisections=6), 1.0)
      28.0
    """
    search = 2 * (settings.value("budget.search_steps") or 1) + settings.value("budget.num_bisections")
    search += settings.value("budget.halving") == "linear"
    return forward * (2 * settings.value("attack.num_steps") + 6 + search)


def forward_flops(settings: Settings) -> float:
    """What XLA counts for one evaluation of the network on a batch."""
    source = read_data(settings)
    model = network(settings, source)
    images = jax.ShapeDtypeStruct((settings.batch_size, *source.image_shape), jnp.float32)
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), images)
    evaluate = jax.jit(lambda *arguments: model.apply(*arguments, train=False)[0].logits)
    cost = evaluate.lower(params, model_state, images).cost_analysis() or {}
    return float(cost["flops"])


def matmul_rate(dtype, size: int | None = None, repeats: int = 20) -> float:
    """Measured operations per second of a square matrix product, at jax's default precision (TF32 on GPUs that have it).

    Example:
      >>> matmul_rate(jnp.float32, size=64, repeats=2) > 0
      True
    """
    size = size or (MATMUL_ON_CPU if jax.default_backend() == "cpu" else MATMUL)
    left = jax.random.normal(jax.random.key(0), (size, size), dtype)

    @jax.jit
    def products(x):
        return jax.lax.fori_loop(0, repeats, lambda _, y: x @ y * jnp.asarray(size**-0.5, dtype), x)

    call = lambda: products(left).block_until_ready()  # noqa: E731
    call()
    seconds = min(sample(call).wall for _ in range(3))
    return 2.0 * size**3 * repeats / seconds


def utilisation(name: str, flops: float, seconds: float, rate: float) -> dict[str, Any]:
    """The share of the measured matrix-product rate that a step reaches.

    Example:
      >>> utilisation("blind", 1e12, 0.5, 4e12)["share"]
      0.5
    """
    return {"step": name, "flops": flops, "seconds": seconds, "matmul_rate": rate, "share": flops / seconds / rate}
