"""RST: a robust subnetwork of random weights, found by training scores; the weights are never trained."""

from __future__ import annotations

from bap_jax.methods._published import ADVERSARIAL, by_default, sgd
from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="rst",
    settings={**ADVERSARIAL, "pruner": "edge_popup", **by_default(sgd(0.1, 5e-4, rate_schedule="cosine")), "epochs": 160},
    taxonomy=Taxonomy("before: AT of scores, none, 1S", "US", "L", "LIS", attacks=True, pretrained=False),
    reference='Fu et al. 2021, "Drawing Robust Scratch Tickets: Subnetworks with Inborn Robustness Are Found within Randomly '
    'Initialized Networks"',
    differs="BatchNorm keeps the affine part that it begins with; the shape of the rate is ours.",
)
