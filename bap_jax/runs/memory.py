"""A run that leaves no folder behind: what it keeps of checkpoints and lines, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from bap_jax.types import Network, PyTree


class Kept(Protocol):
    """What a run asks of its checkpoints: :class:`bap_jax.checkpoint.Checkpoints` has it, and :class:`MemoryCheckpoints`."""

    @property
    def folder(self) -> Any: ...

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        network: Network | None = None,
        average: Network | None = None,
        metric: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        stays: bool = False,
    ) -> None: ...

    def restore_network(self, step: int | None = None, *, item: str = "network") -> Network: ...

    def metadata(self, step: int | None = None) -> dict[str, Any]: ...

    def steps(self) -> list[int]: ...

    def latest_step(self) -> int | None: ...

    def best_step(self, phase: int | None = None) -> int | None: ...

    def wait(self) -> None: ...


class MemoryCheckpoints:
    """The networks of a run that goes on as long as its process: the newest, the best of each phase, and those that stay.

    Example:
      >>> kept = MemoryCheckpoints()
      >>> for step, metric in ((1, 0.5), (2, 0.9), (3, 0.7), (4, None)):
      ...     kept.save(step, None, network=Network({}, {}, {}), metric=metric, metadata={"phase": 0})
      >>> kept.steps(), kept.best_step()
      ([2, 4], 2)
    """

    folder = "memory"

    def __init__(self) -> None:
        self._found: dict[int, tuple[Network | None, dict[str, Any], bool]] = {}

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        network: Network | None = None,
        average: Network | None = None,
        metric: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        stays: bool = False,
    ) -> None:
        """Keeps the network, on the host: the arrays may be donated as soon as it returns."""
        about = {**(metadata or {}), "step": step, "metric": metric}
        copied = None if network is None else jax.tree.map(lambda leaf: jax.device_get(leaf).copy(), network)
        self._found[step] = copied, about, stays
        phases = {about.get("phase", 0) for _, about, _ in self._found.values()}
        stay = {step, *(self.best_step(phase) for phase in phases)}
        self._found = {other: held for other, held in self._found.items() if other in stay or held[2]}

    def restore_network(self, step: int | None = None, *, item: str = "network") -> Network:
        """The network of a step, by default of the newest."""
        found = self._found[self._step(step)][0]
        assert found is not None and item == "network"
        return found

    def metadata(self, step: int | None = None) -> dict[str, Any]:
        """What was said of a step, with ``step`` and ``metric``."""
        return self._found[self._step(step)][1]

    def steps(self) -> list[int]:
        """The steps that are kept, in order."""
        return sorted(self._found)

    def latest_step(self) -> int | None:
        """The newest of them."""
        return max(self._found, default=None)

    def best_step(self, phase: int | None = None) -> int | None:
        """The step with the largest metric, the later one of equals, of a phase; by default of the newest."""
        about = [about for _, about, _ in self._found.values()]
        wanted = max((one.get("phase", 0) for one in about), default=0) if phase is None else phase
        measured = [(one["metric"], one["step"]) for one in about if one["metric"] is not None and one.get("phase", 0) == wanted]
        return max(measured, default=(0, None))[1]

    def wait(self) -> None:
        """Nothing is written in the background."""

    def _step(self, step: int | None) -> int:
        newest = max(self._found)
        return newest if step is None else step


class MemoryFolder:
    """The lines that a run would write to ``metrics.jsonl``."""

    folder = None

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.changed_versions: dict[str, tuple[Any, Any]] = {}

    def log(self, step: int, **values: Any) -> None:
        """Keeps a line."""
        self.lines.append({"step": step, **values})
