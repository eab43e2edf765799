"""Instance-adaptive adversarial training: a radius per example that grows while its neighbours are right."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="iaat",
    settings={"budget": "iaat", "attack.num_steps": 10, "loss.label_smoothing": 0.0},
    taxonomy=Taxonomy("during: adversarial training", "US", "L", "LWM", attacks=True, pretrained=False),
    reference='Balaji et al. 2019, "Instance adaptive adversarial training"',
    differs="The network is pruned while it trains, which the original does not do.",
)
