"""Checkpoints of a whole training state: saved in the background, complete or not there at all, the last few and the best."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import re
import shutil
import textwrap
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from bap_jax.checkpoint.digests import find_damage, has_digests, write_digests
from bap_jax.checkpoint.json_file import check_json, read_json
from bap_jax.checkpoint.leaves import as_target, check_layout, describe
from bap_jax.checkpoint.paths import absolute
from bap_jax.errors import CheckpointError, RunWarning, SettingError, StorageError
from bap_jax.types import Network, PyTree

CHECKPOINTS = "checkpoints"  # the folder inside a run folder
_DELETED = "deleted"  # old checkpoints are renamed into it before their files go, so that half of one is never met
_PROBE = ".probe"
_ABOUT = ("about", "metadata")  # the file that says what a checkpoint is


class DamagedCheckpoint(CheckpointError):
    """The files of a checkpoint are not those that were written.

    Attributes:
      step: which checkpoint.
      folder: the folder of its step, as text.
      whole: the step of one that is whole, the next before it if there is one; None if there is no other.
    """

    def __init__(self, step: int, folder: str, damage: str, whole: int | None):
        instead = "no other checkpoint is whole" if whole is None else f"the checkpoint of step {whole} is whole"
        super().__init__(f"the checkpoint of step {step} in {os.path.dirname(folder)} is damaged: {damage}; {instead}")
        self.step, self.folder, self.whole = step, folder, whole


class Checkpoints:
    """The checkpoints of one run, kept in one folder.

    Saving returns as soon as the arrays are copied; a thread writes them, and a checkpoint appears under its step's name only
    when it is complete. A process killed while saving leaves a temporary folder behind, which the next one removes, and the
    checkpoints from before. Use it as a context manager, or call :meth:`close`, so that the last save is waited for.

    The thread also writes a digest of every file, and what is restored is compared with it first. A checkpoint of an earlier
    version has no digests; it is restored all the same, with a :class:`bap_jax.errors.RunWarning`. A folder with a step's name
    that is no checkpoint is left out with one.

    Args:
      folder: where the checkpoints go, as a path or a ``gs://`` address; made if it is not there.
      keep: how many of the newest checkpoints stay. The best one of every phase stays besides.
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
        self.folder = absolute(folder)
        self._keep, self._mode, self._read_only = keep, mode, read_only
        self._orbax = self._open()
        self._about: dict[int, dict[str, Any]] = {}
        self._damaged: dict[int, str] = {}  # those of which nothing can be known, and why
        self._saving: int | None = None
        for step in sorted(self._orbax.all_steps()):
            self._look_at(step)

    def _look_at(self, step: int) -> None:
        """Take a step's folder for what it is: a checkpoint, a damaged one, or none."""
        folder = self.folder / str(step)
        try:
            damage = find_damage(folder, _ABOUT[:1]) if has_digests(folder) else None
            if damage is None:
                self._about[step] = _read_about(folder)
            else:
                self._damaged[step] = str(damage)
        except FileNotFoundError:
            missing = os.path.join(*_ABOUT)
            self._say(f"{folder} is no checkpoint: it has no {missing}; it is left out")
        except (SettingError, OSError) as error:
            self._damaged[step] = str(error)

    def _say(self, text: str) -> None:
        if jax.process_index() == 0:
            warnings.warn(text, RunWarning, stacklevel=2)

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            create=not self._read_only,
            cleanup_tmp_directories=not self._read_only,
            todelete_subdir=None if self._read_only else _DELETED,
            preservation_policy=_Keep(self),
            temporary_path_class=_with_digests(ocp.path.atomicity_defaults.get_default_temporary_path_class(self.folder)),
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "network": ocp.StandardCheckpointHandler()}
        handlers |= {"average": ocp.StandardCheckpointHandler()}
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
        average: Network | None = None,
        metric: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        stays: bool = False,
    ) -> None:
        """Save a state; the writing goes on in the background.

        All hosts call it. It first waits for the save before it. The arrays may be donated as soon as it returns.

        Args:
          step: how many steps have been done; larger than any saved step.
          state: a pytree of arrays, typed random keys and Python numbers: NamedTuples, optax states and bool masks come back
            bit for bit.
          network: what :func:`restore_network` is to find; written besides the state, as it need not be a part of it.
          average: the network of averaged weights, if there is one, besides.
          metric: the metric on validation data by which the best checkpoint is chosen; ``None`` for a checkpoint that cannot be
            the best, for instance before the final sparsity is reached.
          metadata: JSON values to find again with :meth:`metadata`, such as the number of the phase.
          stays: whether it is kept besides the newest few and the best.

        Raises:
          SettingError: the step is not larger than the last, the metric is not finite, or a leaf or the metadata cannot be
            saved.
          StorageError: it, or the save before it, cannot be written, for instance to a full disk.
        """
        step, metric, metadata = int(step), None if metric is None else float(metric), check_json(metadata or {}, "metadata")
        self._check_save(step, metric)
        about: dict[str, Any] = {"step": step, "metric": metric, "leaves": list(describe(state).items()), "metadata": metadata}
        about |= {"stays": True} if stays else {}
        items = {"state": ocp.args.StandardSave(_savable(state)), "about": ocp.args.JsonSave(about)}
        for name, saved in (("network", network), ("average", average)):
            if saved is not None:
                tree = Network(*saved)._asdict()
                describe(tree, name)
                items[name] = ocp.args.StandardSave(jax.tree.map(_as_array, tree))
        self.wait()
        if step in self._orbax.all_steps():  # a folder that is no checkpoint
            self._orbax.delete(step)
        self._about[step], self._saving = about, step  # before orbax asks which checkpoints to keep
        try:
            self._orbax.save(step, args=ocp.args.Composite(**items), force=True)
        except BaseException as error:
            self._about.pop(step, None)
            self._raise_storage_error(error)
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
          DamagedCheckpoint: its files are not those that were written; the message names the file, and the leaves where they
            can be told.
        """
        step = self._existing(step)
        target = as_target(target)
        check_layout(dict(self._about[step]["leaves"]), describe(target), f"the checkpoint of step {step} in {self.folder}")
        with self._reading(step, "state"):
            known, complete = self._known_fields(target, step)
            return complete(self._orbax.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(known)))["state"])

    def _known_fields(self, target: PyTree, step: int) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
        """The target without the fields that hold nothing and that were not known yet when the checkpoint was saved, for orbax
        takes no other structure; and what puts them back.
        """
        stored = dict(self._orbax.item_metadata(step))["state"].tree
        fields = getattr(target, "_fields", ())
        new = [name for name in fields if not jax.tree.leaves(getattr(target, name)) and name not in stored]
        if not new:
            return target, lambda found: found
        names = [name for name in fields if name not in new]
        earlier = namedtuple("earlier", names)(*(getattr(target, name) for name in names))  # type: ignore[misc]
        return earlier, lambda found: target._replace(**found._asdict())

    def restore_network(self, step: int | None = None, *, item: str = "network") -> Network:
        """Restore the network alone, without knowing its structure: see :func:`restore_network`. ``item`` is ``network`` or
        ``average``, that of averaged weights.
        """
        step = self._existing(step)
        with self._reading(step, item):
            stored = dict(self._orbax.item_metadata(step)).get(item)
            if stored is None:
                what = {"network": "a network", "average": "an average of weights, which --ema keeps"}[item]
                raise CheckpointError(f"the checkpoint of step {step} in {self.folder} was saved without {what}")
            here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored.tree)
            args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
            return Network(**self._orbax.restore(step, args=args)[item])

    @contextlib.contextmanager
    def _reading(self, step: int, item: str) -> Iterator[None]:
        """Compare the files of an item with their digests, then read; without any, damaged is what cannot be read."""
        folder = self.folder / str(step)
        if has_digests(folder):
            damage = find_damage(folder, (item, *_ABOUT[:1]))
            if damage is not None:
                raise self._damage(step, str(damage))
            yield
            return
        self._say(
            f"the checkpoint of step {step} in {self.folder} was saved by an earlier version, without digests: "
            "damage to its files may go unseen"
        )
        try:
            yield
        except CheckpointError:
            raise
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise self._damage(step, f"{item} cannot be read ({_short(error)})") from error

    def _damage(self, step: int, damage: str) -> DamagedCheckpoint:
        return DamagedCheckpoint(step, str(self.folder / str(step)), damage, self._whole_instead_of(step))

    def _whole_instead_of(self, step: int) -> int | None:
        """The next checkpoint before a step of which all files are as they were written, else the next after it."""
        others = sorted(self._about, key=lambda other: (other > step, abs(other - step)))
        return next((other for other in others if other != step and self._is_whole(other)), None)

    def _is_whole(self, step: int) -> bool:
        folder = self.folder / str(step)
        if has_digests(folder):
            return find_damage(folder) is None
        return (folder / "state" / "_METADATA").exists()

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
        """The saved steps, in order; one that is still being written is among them, and so are damaged ones."""
        return sorted({*self._about, *self._damaged})

    def latest_step(self) -> int | None:
        """The newest saved step, or None."""
        return max(self.steps(), default=None)

    def best_step(self, phase: int | None = None) -> int | None:
        """The step with the best metric of a phase, the later one of equals; None if no checkpoint of it has a metric.

        Args:
          phase: its number, as ``phase`` in the metadata says it, 0 where they do not; by default that of the newest checkpoint.

        With a :class:`bap_jax.errors.RunWarning` if the metric of a damaged checkpoint is not known.
        """
        for step, damage in self._damaged.items():
            self._say(f"the checkpoint of step {step} in {self.folder} is damaged and cannot be the best one: {damage}")
        of_phase = _by_phase(self._about)
        newest = max(of_phase, default=0)
        return _best(of_phase.get(newest if phase is None else phase, {}), self._mode)

    def truncate_after(self, step: int) -> None:
        """Remove all checkpoints after a step, so that training can go on from there.

        Args:
          step: the last step to keep, one of :meth:`steps`.

        Raises:
          CheckpointError: there is no such checkpoint.
        """
        self._existing(step)
        self.wait()
        for later in [other for other in self._orbax.all_steps() if other > step]:
            self._orbax.delete(later)
        self._forget()
        self._remove()

    def wait(self) -> None:
        """Wait until everything is written; an error that happened while writing is raised here.

        Raises:
          StorageError: a checkpoint cannot be written, for instance to a full disk; those before it are kept.
        """
        try:
            self._orbax.wait_until_finished()
        except Exception as error:
            self._recover()
            self._raise_storage_error(error)
            raise
        self._forget()
        self._saving = None
        self._remove()

    def _recover(self) -> None:
        """After a save that failed: orbax gave up the checkpoints that were to go for the new one, and their files are there."""
        if self._saving is not None:
            self._about.pop(self._saving, None)
        self._orbax.reload()
        self._forget()
        for step in {*self._orbax.all_steps()} - {*self.steps(), self._saving}:
            self._look_at(step)

    def _raise_storage_error(self, error: BaseException) -> None:
        """If saving failed because of the disk, an error that names the step and the last good one."""
        number = re.search(r"os_error_code='(\d+)'", str(error))  # as tensorstore tells it
        code = error.errno if isinstance(error, OSError) else int(number[1]) if number else None
        if code is None:
            return
        good = self.latest_step()
        kept = "there is no earlier checkpoint" if good is None else f"the checkpoint of step {good} is kept"
        path = self.folder / str(self._saving)
        raise StorageError(f"the checkpoint {path} cannot be written: {os.strerror(code)}; {kept}") from error

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
        if wanted in self._damaged:
            raise self._damage(wanted, self._damaged[wanted])
        if wanted is None or wanted not in self._about:
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"there is {what} in {self.folder}: it has the steps {self.steps()}")
        return wanted

    def _forget(self) -> None:
        """Follow orbax in forgetting old checkpoints, and one whose saving failed."""
        kept = set(self._orbax.all_steps())
        self._about = {step: about for step, about in self._about.items() if step in kept}
        self._damaged = {step: damage for step, damage in self._damaged.items() if step in kept}

    def _remove(self) -> None:
        """Remove the files of old checkpoints; only while no thread is at work, which might be renaming another one."""
        if not self._read_only and jax.process_index() == 0:
            shutil.rmtree(os.path.join(str(self.folder), _DELETED), ignore_errors=True)


class _Keep:
    """orbax's preservation policy for the newest few and the best of every phase.

    (Its own ``best_fn`` would keep the best ones alone.)
    What is damaged, or no checkpoint, is not ours to remove.
    """

    def __init__(self, owner: Checkpoints):
        self._owner = owner

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps, about = [info.step for info in checkpoints], self._owner._about
        best = {_best(of_phase, self._owner._mode) for of_phase in _by_phase(about).values()}
        stay = {*sorted(about)[-self._owner._keep :], *best}
        return [step in stay or step not in about or about[step].get("stays", False) for step in steps]


@functools.cache
def _with_digests(base: type) -> type:
    """The class by which orbax gives a complete checkpoint its name, writing the digests first."""

    class WithDigests(base):  # type: ignore[misc, valid-type]
        async def finalize(self) -> None:
            await asyncio.to_thread(write_digests, self.get())
            await super().finalize()

    return WithDigests


def check_readable(folder: str | os.PathLike[str]) -> None:
    """Save a little and read it back, so that a run does not find out at its end that nothing it saved can be read.

    All hosts call it. It takes some 0.1 s and leaves nothing behind.

    Args:
      folder: where the checkpoints are to go; made if it is not there.

    Raises:
      CheckpointError: what was read is not what was saved.
      StorageError: nothing can be saved there, for instance because the disk is full.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> check_readable(folder), os.listdir(folder)
      (None, [])
    """
    place, wanted = absolute(folder) / _PROBE, {"w": np.arange(4, dtype=np.float32)}
    _remove_tree(place)  # of a process that was killed
    try:
        with Checkpoints(place) as checkpoints:
            checkpoints.save(0, wanted)
            found = checkpoints.restore(wanted)
        if not np.array_equal(found["w"], wanted["w"]):
            raise CheckpointError(f"{found['w'].tolist()} instead of {wanted['w'].tolist()}")
    except StorageError as error:
        reason = str(error).partition(": ")[2].partition(";")[0]
        raise StorageError(f"no checkpoint can be written to {absolute(folder)}: {reason}") from error
    except (ValueError, OSError, KeyError, TypeError) as error:  # ValueError: also ours, and tensorstore's
        raise CheckpointError(f"a checkpoint in {absolute(folder)} cannot be read back: {_short(error)}") from error
    finally:
        _remove_tree(place)


def _remove_tree(folder: epath.Path) -> None:
    if jax.process_index() == 0 and folder.exists():
        with contextlib.suppress(OSError):
            folder.rmtree()


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
    path = absolute(folder)
    path = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint in {path}: no such folder")
    with Checkpoints(path, read_only=True) as checkpoints:
        if best:
            step = checkpoints.best_step()
            if step is None:
                raise CheckpointError(f"no checkpoint in {path} has a metric, so none is the best")
        return checkpoints.restore_network(step)


def _by_phase(about: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[int, Mapping[str, Any]]]:
    """What is known of checkpoints, by the number of the phase that they are of."""
    found: dict[int, dict[int, Mapping[str, Any]]] = {}
    for step, one in about.items():
        found.setdefault(one["metadata"].get("phase", 0), {})[step] = one
    return found


def _best(about: Mapping[int, Mapping[str, Any]], mode: str) -> int | None:
    sign = 1 if mode == "max" else -1
    return max(((sign * a["metric"], step) for step, a in about.items() if a["metric"] is not None), default=(0, None))[1]


def _read_about(folder: epath.Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
      FileNotFoundError: the folder is no checkpoint, or not of this package.
      SettingError: it is not what is written there.
    """
    path = folder.joinpath(*_ABOUT)
    about = read_json(path)
    metric = about.get("metric", "")
    fits = (metric is None or isinstance(metric, float)) and isinstance(about.get("metadata"), dict)
    if not (fits and str(about.get("step")) == folder.name and isinstance(about.get("leaves"), list)):
        raise SettingError(os.fspath(path), about.get("step"), f"what was saved at step {folder.name}")
    return about


def _short(error: BaseException) -> str:
    """An error in a line; tensorstore's go on and on."""
    return textwrap.shorten(str(error).partition(" [")[0], 300, placeholder=" …") or type(error).__name__


def _savable(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, np.generic) else leaf, tree)


def _as_array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, (jax.Array, np.ndarray)) else np.asarray(leaf)
