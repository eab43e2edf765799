"""S2AP: HYDRA's scores, trained where the loss is worst near them."""

from __future__ import annotations

from bap_jax.methods.hydra import METHOD as HYDRA
from bap_jax.types import Taxonomy

METHOD = HYDRA._replace(
    name="s2ap",
    settings={**HYDRA.settings, "pruner": "s2ap"},
    taxonomy=Taxonomy("after: AT, AT, 1S", "US", "L", "LIS", attacks=True, pretrained=True),
    reference='Piras et al. 2025, "S2AP: Score-space Sharpness Minimization for Adversarial Pruning"',
    differs="Known are the objective and its constraint; gamma, the single step and the phases, HYDRA's, are ours.",
)
