"""MART: adversarial examples, those that are misclassified counting more."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="mart",
    settings={
        "budget": "uniform",
        "budget.epsilon": 8 / 255,
        "attack.num_steps": 10,
        "loss": "mart",
        "loss.label_smoothing": 0.0,
    },
    taxonomy=Taxonomy("during: adversarial training", "US", "L", "LWM", attacks=True, pretrained=False),
    reference='Wang et al. 2020, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples"',
    differs="The network is pruned while it trains, which the original does not do.",
)
