"""Weights that others can read: safetensors files in this package's own layout and in PyTorch's, and back."""

from bap_jax.export.arrange import Arranged, arrange, restore
from bap_jax.export.card import model_card
from bap_jax.export.files import read_tensors, write_tensors
from bap_jax.export.names import ARCHITECTURES, LAYOUTS, Entry, entries, layout_of
from bap_jax.export.network import Exported, Imported, export_network, import_network

__all__ = [
    "ARCHITECTURES",
    "LAYOUTS",
    "Arranged",
    "Entry",
    "Exported",
    "Imported",
    "arrange",
    "entries",
    "export_network",
    "import_network",
    "layout_of",
    "model_card",
    "read_tensors",
    "restore",
    "write_tensors",
]
