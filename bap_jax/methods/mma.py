"""Max-margin adversarial training: margins of examples, found again in every epoch."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="mma",
    settings={"budget": "mma", "attack.num_steps": 10, "loss.label_smoothing": 0.0, "budget.num_bisections": 10},
    taxonomy=Taxonomy("during: adversarial training", "US", "L", "LWM", attacks=True, pretrained=False),
    reference='Ding et al. 2020, "MMA Training: Direct Input Space Margin Maximization through Adversarial Training"',
    differs="The network is pruned while it trains, which the original does not do.",
)
