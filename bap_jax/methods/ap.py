"""Adversarial pruning: gradual pruning under an attack of one radius, half of the loss on clean images."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="ap",
    settings={"budget": "uniform"},
    taxonomy=Taxonomy("during: adversarial training", "US", "L", "LWM", attacks=True, pretrained=False),
    reference='Xie et al. 2021, "Blind Adversarial Pruning", section 3; Ye et al. 2019',
    differs="The radius has to be given: there is no published one for all data.",
)
