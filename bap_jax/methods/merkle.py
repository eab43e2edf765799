"""Pruning in the Face of Adversaries: clean training, then prune and retrain until validation data says enough."""

from __future__ import annotations

from bap_jax.types import Length, Method, Phase, Taxonomy

METHOD = Method(
    name="merkle",
    settings={
        "budget": "none",
        "pruner": "at_start",
        "pruner.ranking": "global",
        "loss": "clean",
        "loss.label_smoothing": 0.0,
        "optimizer.learning_rate": 1e-3,
        "batch_size": 64,
        "patience": 5,
        "validation_limit": 6000,
    },
    phases=(
        Phase("pretrain", {"pruner": ("dense", {})}, Length(epochs=100)),
        Phase("prune", {}, Length(epochs=100)),
    ),
    taxonomy=Taxonomy("after: NT, NT, IT", "US, S", "L, G", "LWM", attacks=False, pretrained=True),
    reference='Merkle, Samsinger and Schöttle 2022, "Pruning in the Face of Adversaries"',
    differs="One step of compression: a chain of them is as many runs, each --init-from the one before it. Local single weights "
    "compete in their layer, theirs in each 5×5 kernel; dense layers' filters and kernels are pruned, too; 100 epochs at most.",
)
