"""TRADES: clean images, and how far the prediction moves under attack."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="trades",
    settings={
        "budget": "uniform",
        "budget.epsilon": 0.031,
        "attack.num_steps": 10,
        "loss": "trades",
        "loss.label_smoothing": 0.0,
    },
    taxonomy=Taxonomy("during: adversarial training", "US", "L", "LWM", attacks=True, pretrained=False),
    reference='Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy"',
    differs="The network is pruned while it trains, which the original does not do.",
)
