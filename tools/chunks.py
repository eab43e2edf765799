"""What chunks of a batch cost: ``python -m tools.chunks`` times blind steps in turns and prints the table of docs/hosts.md."""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

import bap_jax as bap
from bap_jax import budgets, losses, models, pruners
from bap_jax.training import init_state, make_train_step

ARMS: tuple[tuple[int, dict[str, Any]], ...] = ((128, {}), (512, {}), (512, {"attack_chunks": 4}), (512, {"microbatches": 4}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    model = models.build("lenet5", num_classes=10)
    attack = functools.partial(bap.pgd, norm="linf", num_steps=7)
    pruner = pruners.magnitude(bap.Ramp(0.0, 0.9, 0, 50, 5))
    slots = optax.adam(1e-3), pruner, budgets.cutoff_scale(budgets.pgd_search(), attack), losses.mix()
    timed: list[list[Any]] = []
    for size, chunks in ARMS:
        images = jax.random.uniform(jax.random.key(1), (size, 28, 28, 1))
        batch = bap.Batch(images, jnp.arange(size) % 10, jnp.arange(size), jnp.ones(size))
        info = bap.RunInfo(model.apply, 10, bap.Bounds(), (28, 28, 1), num_examples=size, steps_per_epoch=1, num_steps=100)
        state = init_state(model, *slots, key=jax.random.key(0), images=images[:1], info=info)
        step = jax.jit(make_train_step(model.apply, *slots, **chunks), donate_argnums=0)
        timed.append([step, step(state, batch)[0], batch, []])
    for _ in range(rounds):
        for arm in timed:
            step, state, batch, seconds = arm
            began = time.perf_counter()
            arm[1] = jax.block_until_ready(step(state, batch)[0])
            seconds.append(time.perf_counter() - began)
    for (size, chunks), (*_, seconds) in zip(ARMS, timed, strict=True):
        print(f"batch {size} {chunks or ''}: {1e3 * statistics.median(seconds) / size:.3f} ms an image")


if __name__ == "__main__":
    main()
