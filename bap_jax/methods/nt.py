"""Natural training: pruning on clean images alone."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="nt",
    settings={"budget": "none"},
    taxonomy=Taxonomy("during: clean training", "US", "L", "LWM", attacks=False, pretrained=False),
    reference='Zhu and Gupta 2017, "To prune, or not to prune"',
    differs="The ramp ends at 60 % of training, as in Blind Adversarial Pruning.",
)
