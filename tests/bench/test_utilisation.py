"""How many operations a step takes, by hand."""

import dataclasses

from bap_jax.bench.utilisation import forward_flops, model_flops
from bap_jax.runs.settings import Settings


def test_operations_of_a_forward_pass():
    settings = Settings(data="digits", model="mlp", batch_size=16)
    products = 2 * 16 * (64 * 256 + 256 * 128 + 128 * 10)
    assert products <= forward_flops(settings) <= 1.05 * products


def test_operations_of_a_step_by_hand():
    """Five steps of the attack, training on two images each, a search of two steps, three bisections, its far end."""
    settings = Settings(attack_steps=5, search_steps=2, num_bisections=3)
    assert model_flops(settings, 1.0) == 10 + 6 + 4 + 3
    assert model_flops(dataclasses.replace(settings, halving="linear"), 1.0) == 10 + 6 + 4 + 3 + 1
