"""Data: named data sets in fixed splits, batches in a resumable order, augmentation."""

from bap_jax.data.arrays import from_arrays
from bap_jax.data.augment import augment, shift_image
from bap_jax.data.batches import evaluation_batches, make_batch, stream_batches, train_batches
from bap_jax.data.dataset import Dataset, Source, Splits, Statistics, check, statistics
from bap_jax.data.digits import digits
from bap_jax.data.load import load, load_split
from bap_jax.data.order import batch_indices, epoch_permutation, steps_per_epoch
from bap_jax.data.prepare import Prepared, prepare
from bap_jax.data.prepared import PreparedSplit, data_folder
from bap_jax.data.split import validation_rows

__all__ = [
    "Dataset",
    "Prepared",
    "PreparedSplit",
    "Source",
    "Splits",
    "Statistics",
    "augment",
    "batch_indices",
    "check",
    "data_folder",
    "digits",
    "epoch_permutation",
    "evaluation_batches",
    "from_arrays",
    "load",
    "load_split",
    "make_batch",
    "prepare",
    "shift_image",
    "statistics",
    "steps_per_epoch",
    "stream_batches",
    "train_batches",
    "validation_rows",
]
