"""Phases of a run, one after the other: how long each is, what it begins with, and what its randomness is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import full_masks
from bap_jax.types import Array, Length, Model, Network, Phase, PyTree

START = "start"  # what a run began with, among the names of its networks
WHICH = ("last", "best", START)


def check_phases(phases: Sequence[Phase]) -> None:
    """Refuses phases that make no sense, before any work starts.

    Raises:
      SettingError: no phase, a name that is empty, not the only one or ``start``; a phase without a length, or that begins with a
        network that there is none of.

    Example:
      >>> check_phases([Phase("prune", {}, Length(steps=0))])
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: length of the phase prune = Length(epochs=None, steps=0): expected epochs or steps above 0
    """
    if not phases:
        raise SettingError("phases", phases, "at least one")
    names = [phase.name for phase in phases]
    for phase in phases:
        if not phase.name or phase.name == START or names.count(phase.name) > 1:
            raise SettingError("name of a phase", phase.name, f"one that no other has, and not {START}")
        for name in ("weights", "masks"):
            if getattr(phase, name) not in WHICH:
                raise SettingError(f"{name} of the phase {phase.name}", getattr(phase, name), "last, best or start")
        steps_of(phase, 1)


def steps_of(phase: Phase, steps_per_epoch: int) -> int:
    """How many steps a phase has, at most: it may say itself that it ends earlier.

    Args:
      phase: with a length.
      steps_per_epoch: of the training data.

    Raises:
      SettingError: a length that is none.

    Example:
      >>> steps_of(Phase("prune", {}, Length(epochs=2.5)), 10)
      25
    """
    length = phase.length or Length()
    given = [number for number in (length.epochs, length.steps) if number is not None]
    if len(given) != 1 or not 0 < given[0] < float("inf"):
        raise SettingError(f"length of the phase {phase.name}", phase.length, "epochs or steps above 0")
    return length.steps if length.steps is not None else max(1, round((length.epochs or 0) * steps_per_epoch))


def phase_key(key: Array, number: int) -> Array:
    """The key of a phase. That of the first is the run's own, so that a run of one phase knows nothing of phases.

    Args:
      key: typed PRNG key of the run.
      number: of the phase, from 0.
    """
    return key if number == 0 else jax.random.fold_in(key, number)


def phase_seed(seed: int, number: int) -> int:
    """The seed of the order of a phase's examples; of the first phase the run's own.

    Example:
      >>> phase_seed(3, 0), phase_seed(3, 1) != phase_seed(3, 2)
      (3, True)
    """
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def new_network(model: Model, key: Array, images: Array) -> Network:
    """The network that :func:`bap_jax.training.init_state` begins with where it is given none.

    Args:
      model: the functions.
      key: the same key.
      images: [B, ...] an example batch; only its shape and dtype matter.
    """
    params, model_state = model.init(jax.random.split(key, 3)[0], images)
    return Network(params, full_masks(params), model_state)


def begins_with(phase: Phase, networks: Mapping[str, Network]) -> Network:
    """The network that a phase begins with: weights and BatchNorm statistics of one, masks of the same or of another.

    Args:
      phase: which says of which.
      networks: ``last`` and ``best`` of the phase before, and ``start``.

    Example:
      >>> networks = {"last": Network({"w": 1}, {"w": True}, {}), "start": Network({"w": 0}, {"w": False}, {})}
      >>> begins_with(Phase("retrain", {}, weights="start"), networks)
      Network(params={'w': 0}, masks={'w': True}, model_state={})
    """
    weights = networks[phase.weights]
    return weights._replace(masks=weights.masks if phase.masks == phase.weights else networks[phase.masks].masks)


def restrict(masks: PyTree) -> bool:
    """Whether masks prune anything: a pruner need not be told of masks that keep everything.

    Example:
      >>> restrict({"w": np.array([True, False])}), restrict({"w": np.array([True]), "b": np.bool_(True)})
      (True, False)
    """
    return not all(bool(np.all(mask)) for mask in jax.tree.leaves(masks))
