"""What devices tell each other in a training step: ``python -m tools.collectives`` prints the counts of docs/hosts.md."""

from __future__ import annotations

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

import bap_jax as bap
from bap_jax import budgets, losses, models, pruners
from bap_jax.parallel import apply_environment, batch_sharding, data_mesh, environment, jit_step, replicated, sharding_of
from bap_jax.parallel.collectives import Collective, collectives
from bap_jax.training import init_state, make_train_step

B, SHAPE = 64, (8, 8, 1)


def counted(model: bap.Model, budget: bap.Budget, devices: int, shard: bool = False, **chunks: Any) -> list[Collective]:
    """The collectives of a step of the loss mix."""
    mesh, slots = data_mesh(devices), (optax.sgd(0.1, momentum=0.9), _pruner(), budget, losses.mix())
    info = bap.RunInfo(model.apply, 10, bap.Bounds(), SHAPE, num_examples=B, steps_per_epoch=1, num_steps=9)
    images = jnp.zeros((1, *SHAPE))
    state = jax.eval_shape(lambda: init_state(model, *slots, key=jax.random.key(0), images=images, info=info))
    batch = bap.Batch(*(jnp.zeros((B, *rest), kind) for rest, kind in ((SHAPE, float), ((), int), ((), int), ((), float))))

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        where = sharding_of(mesh, leaf, 2**10) if shard else replicated(mesh)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    step: Any = jit_step(make_train_step(model.apply, *slots, **chunks), mesh, shard=shard)
    lowered = step.lower(jax.tree.map(placed, state), jax.device_put(batch, batch_sharding(mesh)))
    return collectives(lowered.compile().as_text())


def _pruner() -> bap.Pruner:
    return pruners.magnitude(bap.Ramp(0.0, 0.5, 0, 4, 2))


def main() -> None:
    apply_environment(environment(8, "cpu"))
    attack = functools.partial(bap.pgd, norm="linf", num_steps=3)
    mean = budgets.cutoff_scale(budgets.pgd_search(), attack)
    quantile = budgets.cutoff_scale(budgets.pgd_search(), attack, cutoff=budgets.Cutoff("quantile", 0.5))
    mlp = models.build("mlp", num_classes=10, hidden=(32,))
    resnet = models.build("resnet8", num_classes=10, blocks=(1,), widths=(4,))
    rows: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("uniform", mlp, budgets.uniform(attack, 0.1), {}),
        ("blind, mean", mlp, mean, {}),
        ("blind, quantile", mlp, quantile, {}),
        ("blind, microbatches 2", mlp, mean, {"microbatches": 2}),
        ("blind, shard state", mlp, mean, {"shard": True}),
        ("blind, a ResNet of one block", resnet, mean, {}),
    ]
    for name, model, budget, more in rows:
        for devices in (2, 8):
            found = counted(model, budget, devices, **more)
            kinds = collections.Counter(one.kind + " in a loop" * one.in_loop for one in found)
            largest = max(one.bytes for one in found if one.kind == "all-reduce")
            total = sum(one.bytes for one in found if not one.in_loop)
            print(f"{name}, {devices} devices: {dict(kinds)}; {total} bytes, the largest all-reduce {largest}")


if __name__ == "__main__":
    main()
