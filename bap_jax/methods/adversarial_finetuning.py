"""Adversarial fine-tuning of a compressed network: trained cleanly, cut down or quantised, then three epochs under attack."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from bap_jax.methods._published import ADVERSARIAL, COSINE, by_default, pretrained, sgd
from bap_jax.types import Length, Method, Phase, Taxonomy

_AT_ONCE = MappingProxyType({"schedule": "one-shot", "ramp_begin": 0.0, "ramp_end": 0.0, "scope": "coupled"})
_ATTACKED = pretrained(100, decay=5e-4)
_CLEAN = _ATTACKED._replace(slots={**cast(Mapping[str, Any], _ATTACKED.slots), "budget": ("none", {}), "loss": ("clean", {})})
_FINE = sgd(0.01, 5e-4, **COSINE)
_SOURCE = (
    'Thorsteinsson et al. 2024, "Adversarial Fine-tuning of Compressed Neural Networks for Joint Improvement of Robustness and '
    'Efficiency", arXiv 2403.09441'
)
_OURS = "Their learning rates are not known to us, nor how their filters are scored: rates, L1 and one shot are ours."

METHOD = Method(
    name="adversarial_finetuning",
    settings=ADVERSARIAL | {"pruner": "structured"} | by_default(_FINE),
    phases=(_CLEAN, Phase("finetune", {"pruner": ("structured", _AT_ONCE)}, Length(epochs=3))),
    taxonomy=Taxonomy("after: NT, AT, 1S", "S", "L", "LWM", attacks=True, pretrained=True),
    reference=_SOURCE,
    differs=_OURS + " Sparsity is the share of channels; whole groups of them go, so that bap compact can cut what is left.",
)
INT8 = Method(
    name="adversarial_finetuning_int8",
    settings=ADVERSARIAL | {"pruner": "dense"} | by_default(_FINE),
    phases=(_CLEAN, Phase("finetune", {"pruner": ("dense", {"weight_bits": 8})}, Length(epochs=3))),
    taxonomy=Taxonomy("none", "–", "–", "–", attacks=True, pretrained=True),
    reference=_SOURCE,
    differs="Weights are integers of 8 bits, activations stay floats; the rounding is in place while it is fine-tuned. " + _OURS,
)
