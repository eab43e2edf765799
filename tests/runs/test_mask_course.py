"""Mask distances of a run are those between the masks that its checkpoints hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import mask_distance
from bap_jax.runs.loop import train
from bap_jax.runs.mask_course import late_mask_distance, mask_distances
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
    assert found[0].share > 0 and found[-1].share == 0  # the ramp has ended: magnitude pruning chooses no more
    first = found[0]
    masks = [restore_checkpoint(tmp_path / "run", str(step))[0].masks for step in first[:2]]
    differ = sum(int(np.sum(np.asarray(one) != np.asarray(other))) for one, other in zip(*map(leaves, masks), strict=True))
    assert first.share == pytest.approx(differ / sum(one.size for one in leaves(masks[0])))
    late = late_mask_distance(tmp_path / "run")
    assert (late.later, late.share) == (found[-1].later, 0.0) and 0.8 * late.later <= late.step <= 0.9 * late.later
    with pytest.raises(SettingError, match="a run folder with checkpoints"):
        mask_distances(tmp_path)


def leaves(masks):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(masks) if leaf.ndim]
