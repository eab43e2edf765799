"""Customised adversarial training: a radius per example that grows while it is right, and softer labels."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="cat",
    settings={"budget": "cat", "attack.num_steps": 10, "loss.label_smoothing": 0.0},
    taxonomy=Taxonomy("during: adversarial training", "US", "L", "LWM", attacks=True, pretrained=False),
    reference='Cheng et al. 2020, "CAT: Customized Adversarial Training for Improved Robustness"',
    differs="The network is pruned while it trains, which the original does not do.",
)
