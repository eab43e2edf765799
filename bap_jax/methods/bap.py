"""Blind adversarial pruning: no radius is prescribed; budgets are estimated for each example, cut and scaled."""

from __future__ import annotations

from bap_jax.types import Method, Taxonomy

_REFERENCE = 'Xie et al. 2021, "Blind Adversarial Pruning" (Lixin-Qian/BAP)'
_TAXONOMY = Taxonomy("during: blind adversarial training", "US", "L", "LWM", attacks=True, pretrained=False)

METHOD = Method(
    name="bap",
    settings={"budget": "cutoff-scale"},
    taxonomy=_TAXONOMY,
    reference=_REFERENCE,
    differs="Margins are found by one step of PGD and a search along its path, not by DeepFool; the scale is 1.2.",
)
AUTHORS = Method(
    name="bap-authors",
    settings={
        "budget": "cutoff-scale",
        "budget.search": "deepfool",
        "budget.example": "rescaled",
        "budget.scale": 0.9,
        "norm": "rms",
    },
    taxonomy=_TAXONOMY,
    reference=_REFERENCE,
    differs="The authors' way: five steps of DeepFool, its perturbation rescaled, in the norm that they measure.",
)
