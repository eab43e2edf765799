"""Mask distances of a run are those between the masks that its checkpoints hold."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.checkpoint import read_metrics
from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import mask_distance
from bap_jax.runs.loop import train
from bap_jax.runs.mask_course import MaskCourse, late_mask_distance, mask_distances
from bap_jax.runs.restore import restore_checkpoint
from bap_jax.runs.settings import Settings


def test_by_hand():
    masks = {"a": jnp.array([[True, False], [True, True]]), "b": jnp.array([[True, False]]), "bias": jnp.bool_(True)}
    other = masks | {"a": jnp.array([[False, True], [True, True]])}
    assert float(mask_distance(masks, other)) == pytest.approx(2 / 6) and float(mask_distance(other, other)) == 0
    assert float(mask_distance({"bias": jnp.bool_(True)}, {"bias": jnp.bool_(True)})) == 0  # nothing is prunable


def test_of_a_run(tmp_path):
    settings = Settings(budget="none", epochs=10, batch_size=256, ramp_end=0.7, keep=20, validations=1, validation_epsilon="0")
    train(settings, tmp_path / "run", save_seconds=0.0)
    found = mask_distances(tmp_path / "run")
    assert [one.later for one in found[:-1]] == [one.step for one in found[1:]] and len(found) >= 9
    lines = read_metrics(tmp_path / "run")
    told = {line["step"]: line["mask_distance"] for line in lines if "mask_distance" in line}
    assert len(told) == 10 and all(told[one.later] == pytest.approx(one.share) for one in found)
    assert [line["late_mask_distance"] for line in lines if "late_mask_distance" in line] == [0.0]
    assert [line["peak_bytes_process"] > 1e7 for line in lines if "peak_bytes_process" in line] == [True]
    assert found[0].share > 0 and found[-1].share == 0  # the ramp has ended: magnitude pruning chooses no more
    first = found[0]
    masks = [restore_checkpoint(tmp_path / "run", str(step))[0].masks for step in first[:2]]
    differ = sum(int(np.sum(np.asarray(one) != np.asarray(other))) for one, other in zip(*map(leaves, masks), strict=True))
    assert first.share == pytest.approx(differ / sum(one.size for one in leaves(masks[0])))
    late = late_mask_distance(tmp_path / "run")
    assert (late.later, late.share) == (found[-1].later, 0.0) and 0.8 * late.later <= late.step <= 0.9 * late.later
    with pytest.raises(SettingError, match="a run folder with checkpoints"):
        mask_distances(tmp_path)


def test_a_course_that_goes_on_within_an_epoch_finds_the_same():
    """Ten epochs of 4 steps, masks drawn anew at each step; a stop at every step, its checkpoint read from text."""
    random = np.random.RandomState(0)
    drawn = [{"a": jnp.asarray(random.rand(5, 3) < 0.5), "b": jnp.bool_(True)} for _ in range(41)]
    whole, broken = (MaskCourse(0, 4, 40) for _ in range(2))
    whole.begin(0, drawn[0], {})
    broken.begin(0, drawn[0], {})
    found = []
    for step in range(1, 41):
        found.append(whole.after(step, drawn[step]))
        assert broken.after(step, drawn[step]) == found[-1]
        about, broken = json.loads(json.dumps(broken.about(step))), MaskCourse(0, 4, 40)
        broken.begin(step, drawn[step], about)
    by_hand = [float(mask_distance(drawn[step - 4], drawn[step])) for step in range(4, 41, 4)]
    assert [one["mask_distance"] for one in found if one] == pytest.approx(by_hand)
    late = {"late_mask_distance": pytest.approx(float(mask_distance(drawn[36], drawn[40])))}
    assert whole.last(drawn[40]) == late == broken.last(drawn[40])


def leaves(masks):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(masks) if leaf.ndim]
