"""What a run starts from that does not start from new weights: the network of another run, or one in a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bap_jax.checkpoint import Network, describe
from bap_jax.data import Source
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.mathematics.masks import count_prunable, fitted_masks, full_masks, measured_sparsity
from bap_jax.runs.recipe import model_of
from bap_jax.runs.restore import fitted, restore_checkpoint
from bap_jax.runs.settings import Settings
from bap_jax.runs.weights import read_network

_FILE_MASKS = {"keep": "file", "nonzero": "nonzero", "none": "none"}  # as reading a file calls them


class Start(NamedTuple):
    """A network to start from, and the SHA-256 of its leaves."""

    network: Network
    digest: str


def check_source(settings: Settings) -> None:
    """Refuses, before data is read, an ``--init-from`` that is not there.

    Raises:
      SettingError: it is not.
    """
    source = Path(settings.init_from or "")
    if not source.exists():
        raise SettingError("--init-from", settings.init_from, "a run folder, or a file of weights: .safetensors, .pt, .pth")
    if source.is_file() and settings.init_checkpoint != "last":
        raise SettingError("--init-checkpoint", settings.init_checkpoint, "nothing with a file, which has one network")


def start_of(settings: Settings, images: Source) -> Start | None:
    """The network that ``--init-from`` names, in the structure of the settings' model; None without ``--init-from``.

    Of a run only the weights are read: nothing that its configuration names is imported.

    Args:
      settings: of the run that is to start.
      images: its training data; the shape of the images, their bounds and the number of classes matter.

    Raises:
      SettingError: there is no such run, checkpoint or file; its digest is not ``--init-digest``; it is sparser than the run is
        to end.
      CheckpointError: it is the network of another model, or damaged; the first leaf that differs is named.
    """
    if settings.init_from is None:
        return None
    check_source(settings)
    network = _of_run(settings, images) if Path(settings.init_from).is_dir() else _of_file(settings, images)
    for path, leaf in zip(describe(network.params), jax.tree.leaves(network.params), strict=True):
        if not np.isfinite(leaf).all():
            raise CheckpointError(f"{settings.init_from} holds values that are not finite, in {path}")
    digest = digest_of(network)
    if settings.init_digest not in (None, digest):
        raise SettingError("--init-digest", settings.init_digest, f"{digest}, that of what {settings.init_from} holds now")
    _check_sparsity(settings, network)
    return Start(network, digest)


def digest_of(network: Network) -> str:
    """SHA-256 over the leaves of a network: path, type, shape and values of each.

    Example:
      >>> one = Network({"w": np.zeros((1, 2), np.float32)}, {"w": np.ones((1, 2), bool)}, {})
      >>> digest_of(one) == digest_of(one), digest_of(one) == digest_of(one._replace(masks={"w": np.zeros((1, 2), bool)}))
      (True, False)
    """
    digest, tree = hashlib.sha256(), network._asdict()
    for (path, described), leaf in zip(describe(tree).items(), jax.tree.leaves(tree), strict=True):
        digest.update(f"{path} {described}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _of_run(settings: Settings, images: Source) -> Network:
    source = str(settings.init_from)
    try:
        network, step, _ = restore_checkpoint(source, settings.init_checkpoint)
    except SettingError as error:
        raise SettingError("--init-checkpoint", settings.init_checkpoint, error.expected) from None
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("--checkpoint", "--init-checkpoint")) from error
    where = f"the checkpoint of step {step} in {source}"
    network = fitted(network, model_of(settings, images.num_classes), images.image_shape, where)
    return network._replace(masks=_masks(settings.init_masks, network))


def _masks(which: str, network: Network) -> Any:
    """The masks that a run starts with, of what another one left."""
    if which == "keep":
        return fitted_masks(network.params, network.masks)
    full = full_masks(network.params)
    if which == "none":
        return full
    return jax.tree.map(lambda mask, leaf: leaf != 0 if mask.ndim else mask, full, network.params)


def _of_file(settings: Settings, images: Source) -> Network:
    source = str(settings.init_from)
    try:
        read = read_network(Path(source), settings, lambda: images, masks=_FILE_MASKS[settings.init_masks])
    except SettingError as error:
        if error.name != "FILE":
            raise
        expected = error.expected.replace("--masks", "--init-masks")
        if "--key" in expected:
            expected += "; bap import takes it, and makes a run to start from"
        raise SettingError("--init-from", source, expected) from None
    return Network(read.network.params, read.network.masks, read.network.model_state)


def _check_sparsity(settings: Settings, network: Network) -> None:
    """Refuses to prune to less than the network that is started from has lost already; each layer may round."""
    if settings.pruner != "magnitude" or settings.init_masks == "none":
        return
    measured, layers = float(measured_sparsity(network.masks)), sum(bool(mask.ndim) for mask in jax.tree.leaves(network.masks))
    if measured > settings.final_sparsity + layers / count_prunable(network.masks):
        expected = (
            f"at least {measured:g}, the sparsity of what --init-from begins with; --pruner dense keeps its masks as they are"
        )
        raise SettingError("--final-sparsity", settings.final_sparsity, expected)
