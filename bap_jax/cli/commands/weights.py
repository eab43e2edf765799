"""`bap export` and `bap import`: a network to files, and files to a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bap_jax.cli import arguments as cli
from bap_jax.cli.output import tell
from bap_jax.cli.screen import console, show_notes, show_pairs
from bap_jax.cli.slots import network_told
from bap_jax.errors import SettingError
from bap_jax.runs.one_file import export_packed
from bap_jax.runs.program_file import export_program
from bap_jax.runs.quantization import quantize_run
from bap_jax.runs.restore import settings_of
from bap_jax.runs.settings import FLOAT_BITS
from bap_jax.runs.trust import Trust
from bap_jax.runs.weights import export_run, import_run


def run_export(command: cli.Export, trust: Trust) -> int:
    """`bap export`."""
    if command.format not in FORMATS:
        raise SettingError("--format", command.format, ", ".join(FORMATS))
    for name, only in _ONLY_WITH.items():
        if getattr(command, name) != getattr(cli.Export, name) and command.format != only:
            expected = f"nothing with --format {command.format}; it goes with {only}"
            raise SettingError(f"--{name}", getattr(command, name), expected)
    given = {name: getattr(command, name) for name in ("out", "checkpoint", "data_dir")} | {"trust": trust}
    files, card = _WRITERS[command.format](command, given)
    screen = console()
    tell(files=files, card=card)
    weights, images = card["weights"], card["input"]
    pairs = [
        ("network", f"{card['architecture']}, {card['num_classes']} classes, step {card['step']}"),
        ("layout", f"{card['layout']}, images {images['axes']} {'×'.join(map(str, images['shape']))}"),
        ("normalisation", _normalisation(card["normalisation"])),
        ("parameters", f"{weights['parameters']:,}, {weights['nonzero']:,} not zero"),
        ("sparsity", f"{weights['sparsity']:.4f}"),
    ]
    show_pairs("exported", pairs, screen)
    for name, path in files.items():
        screen.print(f"{name}: {path} ({path.stat().st_size / 1e3:,.0f} kB)", highlight=False, soft_wrap=True)
    return 0


def _safetensors(command: cli.Export, given: dict[str, Any]) -> tuple[dict[str, Path], dict[str, Any]]:
    files, card = export_run(command.run, layout=command.layout, architecture=command.architecture, **given)
    return files._asdict(), card


def _packed(command: cli.Export, given: dict[str, Any]) -> tuple[dict[str, Path], dict[str, Any]]:
    path, card = export_packed(command.run, dtype=command.dtype, **given)
    return {"network": path}, card


def _int8(command: cli.Export, given: dict[str, Any]) -> tuple[dict[str, Path], dict[str, Any]]:
    bits = command.bits
    if bits is None:
        own = settings_of(command.run, uses=()).deployed_bits()
        bits = 8 if own == FLOAT_BITS else own
    path, card = export_packed(command.run, bits=bits, **given)
    return {"network": path}, card


def _stablehlo(command: cli.Export, given: dict[str, Any]) -> tuple[dict[str, Path], dict[str, Any]]:
    return export_program(command.run, weights=command.weights, gradients=command.gradients, **given)


_WRITERS: Mapping[str, Callable[[cli.Export, dict[str, Any]], tuple[dict[str, Path], dict[str, Any]]]] = MappingProxyType(
    {"safetensors": _safetensors, "packed": _packed, "int8": _int8, "stablehlo": _stablehlo}
)
FORMATS = tuple(_WRITERS)
_ONLY_WITH = MappingProxyType(
    {
        **dict.fromkeys(("layout", "architecture"), "safetensors"),
        **{"dtype": "packed", "bits": "int8"},
        **dict.fromkeys(("weights", "gradients"), "stablehlo"),
    }
)


def run_quantize(command: cli.Quantize, trust: Trust) -> int:
    """`bap quantize`."""
    screen = console()
    given = {name: getattr(command, name) for name in ("out", "bits", "checkpoint", "data_dir")}
    out, record = quantize_run(command.run, trust=trust, **given)
    before, after = record["before"], record["after"]
    pairs = [
        ("weights", f"{record['bits']} bits each in kernels, a scale for each output channel"),
        ("moved", f"by {record['moved']:.3g} at most; {record['to_zero']:,} more are zero"),
        ("bytes, dense", f"{before['bytes_dense']:,} before, {after['bytes_dense']:,} now"),
        ("bytes, without zeros", f"{before['bytes']:,} before, {after['bytes']:,} now"),
    ]
    if after["bops_sparse"] is not None:
        pairs.append(("bit operations, sparse", f"{before['bops_sparse']:,} before, {after['bops_sparse']:,} now"))
    show_pairs("quantised", pairs, screen)
    screen.print(f"run: {out}", highlight=False, soft_wrap=True)
    screen.print(f"next: bap evaluate {out} --transfer-from {command.run}", highlight=False, soft_wrap=True)
    return 0


def run_import(command: cli.Import, trust: Trust) -> int:
    """`bap import`."""
    screen = console()
    given = {
        name: getattr(command, name)
        for name in ("model", "data", "out", "data_dir", "image_size", "layout", "architecture", "masks", "sparsity", "key")
    }
    imported = import_run(command.file, options=network_told(command), **given)
    pairs = [
        ("layout", imported.layout),
        ("normalisation", _normalisation(imported.normalisation)),
        ("parameters", f"{imported.num_parameters:,}"),
        ("masks", imported.masks),
        ("sparsity", f"{imported.sparsity:.4f}"),
    ]
    show_pairs("imported", pairs, screen)
    tell(**imported._asdict())
    for dtype in dict.fromkeys(imported.converted.values()):
        count = sum(other == dtype for other in imported.converted.values())
        screen.print(f"{count} tensors were {dtype} and are float32 now", style="yellow", highlight=False)
    show_notes(imported.notes, screen)
    screen.print(f"next: bap evaluate {imported.run}", highlight=False, soft_wrap=True)
    return 0


def _normalisation(normalisation: dict[str, Any] | None) -> str:
    if normalisation is None:
        return "not known: the model's own"
    mean, std = normalisation["mean"], normalisation["std"]
    if not any(mean) and all(value == 1 for value in std):
        return "none: the network takes pixels as they are"
    return f"inside the network, mean {mean}, std {std}"
