"""Adversarial training on adversarial examples alone."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="madry",
    settings={
        "budget": "uniform",
        "budget.epsilon": 8 / 255,
        "attack.num_steps": 10,
        "loss": "madry",
        "loss.label_smoothing": 0.0,
    },
    taxonomy=Taxonomy("during: adversarial training", "US", "L", "LWM", attacks=True, pretrained=False),
    reference='Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks"',
    differs="The network is pruned while it trains, which the original does not do.",
)
