"""What is restored is what was saved: damage is named, with the file, the leaf and a checkpoint that is whole."""

import json
import resource
import shutil
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.checkpoint import Checkpoints, DamagedCheckpoint, Network, check_readable, manager, restore_network
from bap_jax.checkpoint.digests import DIGESTS, find_damage
from bap_jax.checkpoint.paths import LocalPath, absolute
from bap_jax.errors import CheckpointError, RunWarning, StorageError

RANDOM = np.random.default_rng(0)
STATE = {"head": {"kernel": RANDOM.random((40, 50), np.float32)}, "masks": [RANDOM.random((300, 200)) > 0.5], "step": np.int32(0)}


def state(step):
    return {**STATE, "step": np.int32(step)}


def network(step):
    return Network({"w": STATE["head"]["kernel"] * step}, {"w": STATE["head"]["kernel"] > 0.5}, {})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three checkpoints; not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), network=network(step), metric=step / 10)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that may be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def arrays_of(folder, step, item):
    """The file that holds an item's large arrays."""
    return max((folder / str(step) / item).glob("ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def zero(path):
    content = bytearray(path.read_bytes())
    content[300:500] = bytes(200)
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def spoil_digests(folder):
    """Write another digest for a file, as if the file were what is damaged."""
    path = folder / DIGESTS
    path.write_text(path.read_text().replace('"blocks": ["', '"blocks": ["0', 1))


DAMAGES = {
    "one bit": (flip, r"is not what was written, in its bytes \d+ to \d+: "),
    "zeroes": (zero, r"is not what was written, in its bytes 0 to 1023: "),
    "cut": (cut, r"has \d+ bytes where \d+ were written: "),
    "gone": (Path.unlink, "is missing"),
}


@pytest.mark.parametrize("item", ["state", "network"])
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_arrays_are_named_and_a_whole_checkpoint_with_them(name, item, folder):
    spoil, message = DAMAGES[name]
    path = arrays_of(folder, 3, item)
    spoil(path)
    with Checkpoints(folder, read_only=True) as checkpoints:
        restore = {"state": lambda step=None: checkpoints.restore(state(0), step), "network": checkpoints.restore_network}
        with pytest.raises(DamagedCheckpoint, match=message) as damaged:
            restore[item]()
        said = str(damaged.value)
        assert f"the checkpoint of step 3 in {folder} is damaged: {path.relative_to(folder / '3')} " in said
        assert said.endswith("; the checkpoint of step 2 is whole")
        assert (damaged.value.step, damaged.value.folder, damaged.value.whole) == (3, str(folder / "3"), 2)
        if "bytes" in message:
            leaves = {"state": ("head/kernel", "masks/0"), "network": ("params/w", "masks/w")}[item]
            assert any(leaf in said.partition("bytes")[2] for leaf in leaves)
        other = "network" if item == "state" else "state"
        restore[other]()  # the rest of it is still of use
        restore[item](2)


def test_the_leaf_at_the_damage_is_the_one_that_is_named(folder):
    """Each leaf alone, wherever tensorstore put it."""
    named = set()
    for path in (folder / "3" / "state").rglob("d/*"):
        for place in (0.1, 0.3, 0.5, 0.7, 0.9):
            flip(path, place)
            damage = find_damage(absolute(folder / "3"), ["state"])
            flip(path, place)
            assert damage is not None and damage.file == path.relative_to(folder / "3").as_posix()
            named.add(damage.leaves)
    assert named >= {("head/kernel",), ("masks/0",)}
    assert find_damage(absolute(folder / "3")) is None


def test_the_step_before_is_offered_only_if_it_is_whole(folder):
    flip(arrays_of(folder, 2, "state"))
    flip(arrays_of(folder, 3, "network"))
    with pytest.raises(DamagedCheckpoint, match=r"the checkpoint of step 1 is whole$"):
        restore_network(folder)
    shutil.rmtree(folder / "1")
    with pytest.raises(DamagedCheckpoint, match=r"no other checkpoint is whole$") as damaged:
        restore_network(folder)
    assert damaged.value.whole is None
    restore_network(folder, step=2)  # its network is whole


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("about/metadata", flip, "about/metadata is not what was written"),
        ("about/metadata", Path.unlink, "about/metadata is missing"),
        ("state/_METADATA", flip, "state/_METADATA is not what was written"),
        ("state/manifest.ocdbt", zero, "state/manifest.ocdbt "),
        (DIGESTS, flip, f"{DIGESTS} is damaged itself; without it, the checkpoint is read unchecked"),
        (DIGESTS, lambda path: spoil_digests(path.parent), f"{DIGESTS} is damaged itself"),
        (DIGESTS, lambda path: path.write_bytes(b"\xff\x00"), f"{DIGESTS} is damaged itself"),
        (DIGESTS, lambda path: path.write_text("[1]"), f"{DIGESTS} is damaged itself"),
    ],
)
def test_every_file_is_compared(name, spoil, message, folder):
    spoil(folder / "3" / name)
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3] and checkpoints.latest_step() == 3
        with pytest.raises(DamagedCheckpoint, match=message):
            checkpoints.restore(state(0))
        assert checkpoints.restore(state(0), 2)["step"] == 2


def test_what_a_damaged_checkpoint_says_of_itself_is_not_believed(folder):
    """A digit of its metric is another one: it would be the best."""
    path = folder / "1" / "about" / "metadata"
    path.write_text(path.read_text().replace('"metric": 0.1', '"metric": 0.9'))
    with Checkpoints(folder, read_only=True) as checkpoints:
        with pytest.warns(RunWarning, match="step 1 in .* is damaged and cannot be the best one: about/metadata"):
            assert checkpoints.best_step() == 3
        with pytest.raises(DamagedCheckpoint):
            checkpoints.metadata(1)


def test_training_goes_on_before_a_damaged_checkpoint_that_was_removed_and_never_removes_one_itself(folder):
    flip(folder / "1" / "about" / "metadata")
    shutil.rmtree(folder / "3")
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.latest_step() == 2
        for step in (3, 4):
            checkpoints.save(step, state(step), metadata={"again": True})
    with Checkpoints(folder, keep=1) as checkpoints, pytest.warns(RunWarning):
        assert checkpoints.steps() == [1, 2, 4] and checkpoints.best_step() == 2


def test_a_checkpoint_of_an_earlier_version_is_read_and_that_is_said(folder):
    for step in (2, 3):
        (folder / str(step) / DIGESTS).unlink()
    with Checkpoints(folder, read_only=True) as checkpoints:
        with pytest.warns(RunWarning, match="step 3 in .* was saved by an earlier version, without digests"):
            assert checkpoints.restore(state(0))["step"] == 3
        arrays_of(folder, 3, "state").unlink()
        with pytest.warns(RunWarning), pytest.raises(DamagedCheckpoint, match=r"state cannot be read \(.*step 2 is whole$"):
            checkpoints.restore(state(0))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            restore_network(folder, step=2)
    assert len(said) == 1


def test_a_checkpoint_gets_its_name_with_its_digests_or_not_at_all(folder, monkeypatch):
    def full(place):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manager, "write_digests", full)
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(4, state(4))
        expected = f"the checkpoint {folder / '4'} cannot be written: No space left on device; the checkpoint of step 3 is kept"
        with pytest.raises(StorageError) as stopped:
            checkpoints.wait()
        assert str(stopped.value) == expected
        assert checkpoints.steps() == [1, 2, 3]
    assert not (folder / "4").exists()
    monkeypatch.undo()
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(4, state(4))
    assert (folder / "4" / DIGESTS).exists()


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def half_removed(folder):
    for name in (DIGESTS, "about", "state"):
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


@pytest.mark.parametrize("spoil", [empty, half_removed])
def test_a_folder_that_is_no_checkpoint_leaves_the_others_usable(spoil, folder):
    spoil(folder / "3")
    message = "3 is no checkpoint: it has no about/metadata; it is left out"
    with pytest.warns(RunWarning, match=message), Checkpoints(folder, read_only=True) as checkpoints:
        assert (checkpoints.steps(), checkpoints.latest_step(), checkpoints.best_step()) == ([1, 2], 2, 2)
        assert checkpoints.restore(state(0))["step"] == 2
        assert (folder / "3").exists()
    with pytest.warns(RunWarning, match=message), Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(3, state(3))  # stands where a checkpoint has to go
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.steps() == [2, 3]
        assert checkpoints.restore(state(0))["step"] == 3


def test_a_folder_that_was_renamed_is_not_taken_for_another_step(folder):
    (folder / "3").rename(folder / "7")
    message = "= 3: expected what was saved at step 7; the checkpoint of step 2 is whole"
    with Checkpoints(folder, read_only=True) as checkpoints, pytest.raises(DamagedCheckpoint, match=message):
        checkpoints.restore(state(0))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax's writes that were not waited for
def test_a_full_disk_names_the_step_and_the_one_that_is_kept(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {"w": RANDOM.random(500_000)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(2)})
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            checkpoints.save(2, large)
            with pytest.raises(StorageError) as stopped:
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(stopped.value) == (
            f"the checkpoint {tmp_path / '2'} cannot be written: File too large; the checkpoint of step 1 is kept"
        )
        assert checkpoints.restore({"w": jnp.zeros(2)})["w"].tolist() == [1, 1]
        checkpoints.save(3, large)  # the disk has room again
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 3]
        assert np.array_equal(checkpoints.restore(large)["w"], large["w"])


NAMES = ("run[seed=1]", "a**b", "a*", "{x}", "what?", "with space ü", "50%", "x#y", "a:b", "~x", "[!a]", "*", "ocdbt.process_0")


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(name, tmp_path):
    check_readable(tmp_path / name / "checkpoints")
    assert list((tmp_path / name / "checkpoints").iterdir()) == []


def test_a_path_of_this_machine_is_no_address_and_stays_what_it_is():
    assert str(absolute("/gs/runs") / "x") == "/gs/runs/x" and type(absolute("/s3") / "x") is LocalPath
    assert str(absolute("gs://bucket/x")) == "gs://bucket/x"


def test_what_cannot_be_read_back_is_refused(tmp_path, monkeypatch):
    from bap_jax.checkpoint.paths import PosixGPath

    monkeypatch.setattr(LocalPath, "glob", PosixGPath.glob)  # as it was
    with pytest.raises(CheckpointError, match=r"a checkpoint in .*run\[seed=1\] cannot be read back"):
        check_readable(tmp_path / "run[seed=1]")
    assert list((tmp_path / "run[seed=1]").iterdir()) == []


def test_digests_hold_every_file_that_anything_is_restored_from(saved):
    stored = json.loads((saved / "3" / DIGESTS).read_text())["files"]
    there = {path.relative_to(saved / "3").as_posix() for path in (saved / "3").rglob("*") if path.is_file()}
    assert there - stored.keys() == {DIGESTS, "_CHECKPOINT_METADATA", "commit_success.txt"}
    for name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
        assert name not in stored
