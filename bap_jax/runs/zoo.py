"""Small trained networks that come with the package, each with a card of how it was made and what was measured of it."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from bap_jax.errors import SettingError
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.network_file import load_file

FOLDER = "zoo_networks"  # beside this file
NETWORK, CARD = ".safetensors", ".json"


class Card(NamedTuple):
    """What is known about a network of the zoo."""

    name: str
    about: str  # a sentence
    data: str
    model: str
    method: str
    sparsity: float
    train: str  # the commands that made it and measured it
    evaluate: str
    step: int
    accuracies: tuple[dict[str, Any], ...]  # attack, norm, epsilon, accuracy, num_examples
    checks: tuple[dict[str, Any], ...]  # of the evaluation
    versions: dict[str, Any]
    sha256: str  # of the file
    num_bytes: int

    @property
    def clean(self) -> float:
        """The clean accuracy."""
        return next(float(row["accuracy"]) for row in self.accuracies if row["attack"] == "clean")


def names() -> tuple[str, ...]:
    """The networks there are.

    Example:
      >>> "digits-mlp-bap-90" in names()
      True
    """
    return tuple(sorted(path.stem for path in _folder().glob(f"*{CARD}")))


def card(name: str) -> Card:
    """The card of a network.

    Args:
      name: one of :func:`names`.

    Raises:
      SettingError: there is none of that name.

    Example:
      >>> card("digits-mlp-bap-90").sparsity
      0.9
    """
    _check(name)
    told = json.loads((_folder() / f"{name}{CARD}").read_text("utf-8"))
    return Card(**{**told, "accuracies": tuple(told["accuracies"]), "checks": tuple(told["checks"])})


def load(name: str, *, data_dir: str | None = None) -> Deployed:
    """A network of the zoo, as :func:`bap_jax.load` gives a run's.

    Args:
      name: one of :func:`names`.
      data_dir: where prepared data sets are, for :meth:`Deployed.evaluate`; the digits need none.

    Returns:
      The network; ``about["card"]`` is its :class:`Card`.

    Raises:
      SettingError: there is none of that name, or its file is not the one that its card is of.

    Example:
      >>> import numpy as np
      >>> load("digits-mlp-bap-90")(np.zeros((1, 8, 8, 1), np.float32)).shape
      (1, 10)
    """
    about = card(name)
    file = _folder() / f"{name}{NETWORK}"
    if hashlib.sha256(file.read_bytes()).hexdigest() != about.sha256:
        raise SettingError("zoo", name, f"the file that its card is of: {file} is another one; install the package again")
    net = load_file(file, data_dir=data_dir)
    net.about |= {"zoo": name, "card": about}
    return net


def _folder() -> Path:
    return Path(str(resources.files("bap_jax.runs").joinpath(FOLDER)))


def _check(name: str) -> None:
    if name not in names():
        raise SettingError("zoo", name, "one of " + ", ".join(names()))
