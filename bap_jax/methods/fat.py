"""Friendly adversarial training: attacks that stop once an example fails."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="fat",
    settings={"budget": "fat", "attack.num_steps": 10, "loss.label_smoothing": 0.0},
    taxonomy=Taxonomy("during: adversarial training", "US", "L", "LWM", attacks=True, pretrained=False),
    reference='Zhang et al. 2020, "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger"',
    differs="The network is pruned while it trains, which the original does not do.",
)
