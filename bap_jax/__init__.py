"""bap_jax: robust pruning in JAX."""

__version__ = "0.1.0"
