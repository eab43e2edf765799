"""Weights that others can read: safetensors files in this package's own layout and in PyTorch's, and back."""

from bap_jax.export.axes import Arranged, arrange, restore
from bap_jax.export.files import Stored, read_stored, read_tensors, write_tensors
from bap_jax.export.model_card import Difference, differences, model_card
from bap_jax.export.network import Exported, Imported, export_network, import_network
from bap_jax.export.normalisation import FoundNormalisation, normalisation_in
from bap_jax.export.packed_file import is_packed, read_packed, write_packed
from bap_jax.export.rounded import DTYPES, ZEROS, rounded, unrounded
from bap_jax.export.scores import mask_of_scores
from bap_jax.export.serving import SUFFIX, Program, read_program, write_program
from bap_jax.export.torch_names import ARCHITECTURES, LAYOUTS, Entry, entries, layout_of

__all__ = [
    "ARCHITECTURES",
    "DTYPES",
    "LAYOUTS",
    "SUFFIX",
    "ZEROS",
    "Arranged",
    "Difference",
    "Entry",
    "Exported",
    "FoundNormalisation",
    "Imported",
    "Program",
    "Stored",
    "arrange",
    "differences",
    "entries",
    "export_network",
    "import_network",
    "is_packed",
    "layout_of",
    "mask_of_scores",
    "model_card",
    "normalisation_in",
    "read_packed",
    "read_program",
    "read_stored",
    "read_tensors",
    "restore",
    "rounded",
    "unrounded",
    "write_packed",
    "write_program",
    "write_tensors",
]
