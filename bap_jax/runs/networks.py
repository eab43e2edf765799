"""The networks that a phase may take something of: what the run started from, and what each finished phase handed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bap_jax.checkpoint import Checkpoints
from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import apply_masks, fitted_masks
from bap_jax.runs.memory import Kept
from bap_jax.runs.restore import fitted
from bap_jax.runs.run import Run
from bap_jax.training.phases import START, begins_with, new_network
from bap_jax.types import Network


class Networks(Mapping[str, Network]):
    """Networks by name, each read when it is first asked for.

    Args:
      found: name -> what reads it.
    """

    def __init__(self, found: Mapping[str, Callable[[], Network]]):
        self._found = dict(found)
        self._read: dict[str, Network] = {}

    def __getitem__(self, name: str) -> Network:
        if name not in self._read:
            self._read[name] = self._found[name]()
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def networks_of(run: Run, kept: Kept, number: int) -> Networks:
    """What a phase after the first is told of: ``start``, and every phase before it by its name.

    ``start`` is what the run was told to start from, or the new weights that it began with. A finished phase is known by the
    network that it handed on: its best, if the next phase begins with that, else its last.

    Args:
      run: with its phases.
      kept: the run's checkpoints.
      number: of the phase.
    """

    def start() -> Network:
        return _read(run, kept, 0) if 0 in kept.steps() else new_network(run.model, run.key(), run.example)

    def handed_on(finished: int) -> Callable[[], Network]:
        which = "best" if run.phases[finished + 1].weights == "best" else "last"
        return lambda: _read(run, kept, _step(run, kept, finished, which))

    return Networks({START: start} | {run.phases[finished].name: handed_on(finished) for finished in range(number)})


def kept_part(network: Network) -> Network:
    """A network to start from, with nothing in it that its masks prune."""
    masks = fitted_masks(network.params, network.masks)
    return Network(apply_masks(network.params, masks), masks, network.model_state)


def stored_start(run: Run, folder: Path) -> Network:
    """What a run that goes on was told to start from: its checkpoint of step 0."""
    with Checkpoints(folder, read_only=True) as checkpoints:
        return _read(run, checkpoints, 0)


def network_before(run: Run, kept: Kept, number: int, networks: Mapping[str, Network]) -> Network:
    """What a phase after the first begins with, in weights, statistics and masks."""

    def read(which: str) -> Callable[[], Network]:
        return lambda: _read(run, kept, _step(run, kept, number - 1, which))

    return begins_with(run.phases[number], Networks({"last": read("last"), "best": read("best"), START: lambda: networks[START]}))


def _read(run: Run, kept: Kept, step: int) -> Network:
    where = f"the checkpoint of step {step} in {kept.folder}"
    found = fitted(kept.restore_network(step), run.model, run.splits.train.image_shape, where)
    return found._replace(masks=fitted_masks(found.params, found.masks))


def _step(run: Run, kept: Kept, number: int, which: str) -> int:
    """The step of the last or the best checkpoint of a finished phase.

    Raises:
      SettingError: none of its networks was as sparse as asked for when it was validated.
    """
    if which == "last":
        return max(step for step in kept.steps() if kept.metadata(step).get("phase") == number)
    best = kept.best_step(number)
    if best is None:
        name = run.phases[number].name
        raise SettingError("a phase begins with", "best", f"last: no validated network of {name} was as sparse as asked for")
    return best
