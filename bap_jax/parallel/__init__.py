"""Devices, meshes and hosts."""

from bap_jax.parallel.devices import apply_environment, cores, environment
from bap_jax.parallel.hosts import initialize_distributed, is_main_process
from bap_jax.parallel.mesh import batch_sharding, check_batch_size, data_mesh, jit_step, replicate, replicated, shard_batch

__all__ = [
    "apply_environment",
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
