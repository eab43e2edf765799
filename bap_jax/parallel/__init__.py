"""Devices, meshes and hosts. ``bap_jax.parallel.devices`` can be imported before jax's settings are made."""

from bap_jax.parallel.devices import cores, environment
from bap_jax.parallel.hosts import initialize_distributed, is_main_process
from bap_jax.parallel.mesh import batch_sharding, check_batch_size, data_mesh, jit_step, replicate, replicated, shard_batch

__all__ = [
    "batch_sharding",
    "check_batch_size",
    "cores",
    "data_mesh",
    "environment",
    "initialize_distributed",
    "is_main_process",
    "jit_step",
    "replicate",
    "replicated",
    "shard_batch",
]
