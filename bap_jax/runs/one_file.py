"""A run's network in one file that says all it takes to rebuild it: packed floats, or integers with their scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bap_jax.errors import SettingError
from bap_jax.export import DTYPES, export_network, rounded, write_packed
from bap_jax.runs import program
from bap_jax.runs.datasets import example_of
from bap_jax.runs.restore import stored_network
from bap_jax.runs.trust import NOTHING, Trust, code_in, remember
from bap_jax.runs.weights import card_of, make_folder

PACKED, INTEGERS = Path("export") / "model.packed.safetensors", Path("export") / "model.int8.safetensors"  # in a run folder


def export_packed(
    run: Path,
    *,
    out: Path | None = None,
    dtype: str = "float32",
    bits: int | None = None,
    checkpoint: str = "last",
    data_dir: str | None = None,
    trust: Trust = NOTHING,
) -> tuple[Path, dict[str, Any]]:
    """Writes a run's network without its zeros into one file, which :func:`bap_jax.load` reads.

    Args:
      run: a run folder.
      out: the file; by default ``export/model.packed.safetensors``, or ``model.int8.safetensors``, in the run folder.
      dtype: of what is written, ``float32``, or ``float16``, which rounds.
      bits: kernels as integers of so many bits, 2 to 8, with a scale for each output channel
        (:func:`bap_jax.mathematics.quantize.quantize`); biases and BatchNorm stay as ``dtype`` says. None: all are floats.
      checkpoint: ``last``, ``best``, ``ema`` or a step.
      data_dir: where prepared data sets are, if not where the run found them; one example is read, for the images' shape.
      trust: which code the run's configuration may name.

    Returns:
      The file, and what stands in it beside the tensors: the model card, ``prunable`` names, ``dtype``, ``weight_bits``.

    Raises:
      SettingError: a run, checkpoint or type that is not there, a weight beyond float16, or a file that cannot be written.
      CheckpointError: the checkpoint is not of the run's model.
    """
    if dtype not in DTYPES:
        raise SettingError("--dtype", dtype, " or ".join(DTYPES))
    path = Path(run) / (PACKED if bits is None else INTEGERS) if out is None else Path(out)
    if path.suffix != PACKED.suffix or path.is_dir():
        raise SettingError("--out", str(path), f"a file name that ends in {PACKED.suffix}")
    stored = stored_network(run, checkpoint, trust)
    if stored.settings.model == program.NETWORK:
        raise SettingError("--format", "packed", "stablehlo: this network is a program already, which no settings build again")
    example = example_of(stored.settings, data_dir)
    exported = export_network(*stored.on(example).network, layout="jax")
    tensors = rounded(exported, dtype=dtype, bits=bits)
    card = card_of(run, stored, exported, example, layout="jax", architecture=stored.settings.model)
    del card["tensors"], card["format"]  # the file says them itself
    card |= {"prunable": list(exported.masks), "dtype": dtype, "weight_bits": bits}
    make_folder(path)
    write_packed(path, tensors, card)
    remember(path.parent, code_in(stored.settings.as_dict()).values())
    return path, card
