"""Checkpoints of a whole training state: saved in the background, complete or not there at all, the last few and the best."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from bap_jax.checkpoint.json_file import check_json
from bap_jax.checkpoint.layout import as_target, check_layout, describe
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.types import ModelState, Params, PyTree

CHECKPOINTS = "checkpoints"  # the folder inside a run folder
_DELETED = "deleted"  # old checkpoints are renamed into it before their files go, so that half of one is never met


class Network(NamedTuple):
    """The part of a checkpoint that is enough to compute logits with."""

    params: Params  # what the network computes with, pruned weights being zero
    masks: PyTree  # bool, the structure of params, True = kept
    model_state: ModelState


class Checkpoints:
    """The checkpoints of one run, kept in one folder.

    Saving returns as soon as the arrays are copied; a thread writes them, and a checkpoint appears under its step's name only
    when it is complete. A process killed while saving leaves a temporary folder behind, which the next one removes, and the
    checkpoints from before. Use it as a context manager, or call :meth:`close`, so that the last save is waited for.

    Args:
      folder: where the checkpoints go, as a path or a ``gs://`` address; made if it is not there.
      keep: how many of the newest checkpoints stay. The best one stays besides.
      mode: whether the best metric is the largest (``"max"``) or the smallest (``"min"``).
      read_only: only look: no save is accepted, and another process's unfinished save is left alone.

    Raises:
      SettingError: ``keep`` is below 1, ``mode`` is neither, or the folder cannot be written.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> folder = tempfile.mkdtemp()
      >>> with Checkpoints(folder) as checkpoints:
      ...     checkpoints.save(10, {"w": jnp.ones(2)}, metric=0.5, metadata={"phase": 1})
      >>> with Checkpoints(folder) as checkpoints:
      ...     checkpoints.restore({"w": jnp.zeros(2)}), checkpoints.metadata()["phase"]
      ({'w': Array([1., 1.], dtype=float32)}, 1)
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, keep: int = 3, mode: Literal["max", "min"] = "max", read_only: bool = False
    ):
        if keep < 1:
            raise SettingError("keep", keep, "at least 1")
        if mode not in ("max", "min"):
            raise SettingError("mode", mode, "'max' or 'min'")
        self.folder = _absolute(folder)
        self._keep, self._mode, self._read_only = keep, mode, read_only
        self._orbax = self._open()
        self._about = {step: self._read_about(step) for step in self._orbax.all_steps()}

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            create=not self._read_only,
            cleanup_tmp_directories=not self._read_only,
            todelete_subdir=None if self._read_only else _DELETED,
            preservation_policy=_Keep(self),
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "network": ocp.StandardCheckpointHandler()}
        try:
            return ocp.CheckpointManager(
                self.folder, options=options, item_handlers=handlers | {"about": ocp.JsonCheckpointHandler()}
            )
        except OSError as error:
            raise SettingError("checkpoint folder", str(self.folder), f"a folder that can be written ({error})") from error

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        network: Network | None = None,
        metric: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Save a state; the writing goes on in the background.

        All hosts call it. It first waits for the save before it. The arrays may be donated as soon as it returns.

        Args:
          step: how many steps have been done; larger than any saved step.
          state: a pytree of arrays, typed random keys and Python numbers: NamedTuples, optax states and bool masks come back
            bit for bit.
          network: what :func:`restore_network` is to find; written besides the state, as it need not be a part of it.
          metric: the metric on validation data by which the best checkpoint is chosen; ``None`` for a checkpoint that cannot be
            the best, for instance before the final sparsity is reached.
          metadata: JSON values to find again with :meth:`metadata`, such as the number of the phase.

        Raises:
          SettingError: the step is not larger than the last, the metric is not finite, or a leaf or the metadata cannot be
            saved.
        """
        step, metric, metadata = int(step), None if metric is None else float(metric), check_json(metadata or {}, "metadata")
        self._check_save(step, metric)
        about = {"step": step, "metric": metric, "leaves": list(describe(state).items()), "metadata": metadata}
        items = {"state": ocp.args.StandardSave(_savable(state)), "about": ocp.args.JsonSave(about)}
        if network is not None:
            tree = Network(*network)._asdict()
            describe(tree, "network")
            items["network"] = ocp.args.StandardSave(jax.tree.map(_as_array, tree))
        self.wait()
        self._about[step] = about  # before orbax asks which checkpoints to keep
        try:
            self._orbax.save(step, args=ocp.args.Composite(**items), force=True)
        except BaseException:
            self._about.pop(step, None)
            raise
        self._forget()

    def _check_save(self, step: int, metric: float | None) -> None:
        if self._read_only:
            raise SettingError("read_only", True, "False, to save")
        latest = self.latest_step()
        if latest is not None and step <= latest:
            raise SettingError(
                "step", step, f"a step after the last saved one, {latest}; truncate_after removes later checkpoints"
            )
        if metric is not None and not math.isfinite(metric):
            raise SettingError("metric", metric, "a finite number or None")

    def restore(self, target: PyTree, step: int | None = None) -> PyTree:
        """Restore a state into the structure, the types and the places of a target.

        Args:
          target: a pytree of arrays or of ``jax.ShapeDtypeStruct`` (see :func:`bap_jax.checkpoint.as_target`), whose shardings
            say on which devices the leaves are to lie; they need not be those that saved.
          step: which checkpoint, the newest by default.

        Returns:
          The state, bit for bit as it was saved.

        Raises:
          CheckpointError: there is no such checkpoint, or it does not fit the target; the message names the first leaf that
            differs.
        """
        step = self._existing(step)
        target = as_target(target)
        check_layout(dict(self._about[step]["leaves"]), describe(target), f"the checkpoint of step {step} in {self.folder}")
        return self._orbax.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]

    def restore_network(self, step: int | None = None) -> Network:
        """Restore the network alone, without knowing its structure: see :func:`restore_network`."""
        step = self._existing(step)
        stored = dict(self._orbax.item_metadata(step)).get("network")
        if stored is None:
            raise CheckpointError(f"the checkpoint of step {step} in {self.folder} was saved without a network")
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored.tree)
        return Network(**self._orbax.restore(step, args=ocp.args.Composite(network=ocp.args.StandardRestore(target)))["network"])

    def metadata(self, step: int | None = None) -> dict[str, Any]:
        """What was said about a checkpoint when it was saved.

        Args:
          step: which checkpoint, the newest by default.

        Returns:
          The metadata given to :meth:`save`, with ``step`` and ``metric``.

        Raises:
          CheckpointError: there is no such checkpoint.
        """
        about = self._about[self._existing(step)]
        return {**about["metadata"], "step": about["step"], "metric": about["metric"]}

    def leaves(self, step: int | None = None) -> dict[str, str]:
        """What a checkpoint's state is made of, as :func:`bap_jax.checkpoint.describe` tells it.

        Raises:
          CheckpointError: there is no such checkpoint.
        """
        return dict(self._about[self._existing(step)]["leaves"])

    def steps(self) -> list[int]:
        """The saved steps, in order; one that is still being written is among them."""
        return sorted(self._about)

    def latest_step(self) -> int | None:
        """The newest saved step, or None."""
        return max(self._about, default=None)

    def best_step(self) -> int | None:
        """The step with the best metric, the later one of equals; None if no checkpoint has a metric."""
        return _best(self._about, self._mode)

    def truncate_after(self, step: int) -> None:
        """Remove all checkpoints after a step, so that training can go on from there.

        Args:
          step: the last step to keep, one of :meth:`steps`.

        Raises:
          CheckpointError: there is no such checkpoint.
        """
        self._existing(step)
        self.wait()
        for later in [other for other in self.steps() if other > step]:
            self._orbax.delete(later)
        self._forget()
        self._remove()

    def preempted(self, step: int) -> bool:
        """Whether the machine is about to be taken away, so that this step has to be saved; all hosts ask at every step."""
        return self._orbax.reached_preemption(step)

    def wait(self) -> None:
        """Wait until everything is written; an error that happened while writing is raised here."""
        try:
            self._orbax.wait_until_finished()
        finally:
            self._forget()
        self._remove()

    def close(self) -> None:
        """Wait for the last save and let go of the folder."""
        try:
            self.wait()
        finally:
            self._orbax.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _existing(self, step: int | None) -> int:
        self.wait()
        wanted = self.latest_step() if step is None else step
        if wanted is None or wanted not in self._about:
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"there is {what} in {self.folder}: it has the steps {self.steps()}")
        return wanted

    def _read_about(self, step: int) -> dict[str, Any]:
        about = self._orbax.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
        if about is None:
            raise CheckpointError(f"the checkpoint of step {step} in {self.folder} was not written by bap_jax")
        return about

    def _forget(self) -> None:
        """Follow orbax in forgetting old checkpoints, and one whose saving failed."""
        kept = set(self._orbax.all_steps())
        self._about = {step: about for step, about in self._about.items() if step in kept}

    def _remove(self) -> None:
        """Remove the files of old checkpoints; only while no thread is at work, which might be renaming another one."""
        if not self._read_only and jax.process_index() == 0:
            shutil.rmtree(os.path.join(str(self.folder), _DELETED), ignore_errors=True)


class _Keep:
    """orbax's preservation policy for the newest few and the best. (Its own ``best_fn`` would keep the best ones alone.)"""

    def __init__(self, owner: Checkpoints):
        self._owner = owner

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [info.step for info in checkpoints]
        stay = {*sorted(steps)[-self._owner._keep :], self._owner.best_step()}
        return [step in stay for step in steps]


def restore_network(folder: str | os.PathLike[str], *, best: bool = False, step: int | None = None) -> Network:
    """Restore a run's network from research code, in a fresh process and without its training configuration.

    Args:
      folder: a run folder, or its folder of checkpoints.
      best: take the checkpoint that was best on validation data, instead of the newest.
      step: take this one.

    Returns:
      ``Network(params, masks, model_state)`` on this process's first device. Dicts come back as dicts; a list or tuple comes back
      as a list and a NamedTuple as a dict, because their classes are not stored.

    Raises:
      CheckpointError: there is no such checkpoint, or it holds no network.
      SettingError: both ``best`` and ``step`` are given.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> folder = tempfile.mkdtemp()
      >>> with Checkpoints(folder) as checkpoints:
      ...     params, masks = {"w": jnp.array([2.0, 0.0])}, {"w": jnp.array([True, False])}
      ...     checkpoints.save(1, {"params": params}, network=Network(params, masks, {}))
      >>> restore_network(folder)
      Network(params={'w': Array([2., 0.], dtype=float32)}, masks={'w': Array([ True, False], dtype=bool)}, model_state={})
    """
    if best and step is not None:
        raise SettingError("step", step, "None together with best=True")
    path = _absolute(folder)
    path = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint in {path}: no such folder")
    with Checkpoints(path, read_only=True) as checkpoints:
        if best:
            step = checkpoints.best_step()
            if step is None:
                raise CheckpointError(f"no checkpoint in {path} has a metric, so none is the best")
        return checkpoints.restore_network(step)


def _best(about: Mapping[int, Mapping[str, Any]], mode: str) -> int | None:
    sign = 1 if mode == "max" else -1
    return max(((sign * a["metric"], step) for step, a in about.items() if a["metric"] is not None), default=(0, None))[1]


def _absolute(folder: str | os.PathLike[str]) -> epath.Path:
    # A relative path would fail late, in orbax's background thread.
    text = os.fspath(folder)
    return epath.Path(text if "://" in text else os.path.abspath(os.path.expanduser(text)))


def _savable(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, np.generic) else leaf, tree)


def _as_array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, (jax.Array, np.ndarray)) else np.asarray(leaf)
