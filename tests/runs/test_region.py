"""Regions of the command line: which pixels a mask says, and what is none."""

import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.region import region_mask, region_name
from bap_jax.types import Bounds

SHAPE = (6, 8, 3)


def test_patches_and_frames():
    patch = region_mask("patch:1,2,3,4", SHAPE)
    assert patch.shape == (1, 6, 8, 1) and patch.dtype == bool and patch.sum() == 12
    assert patch[0, 1:4, 2:6, 0].all()
    frame = region_mask("frame:2", SHAPE)[0, ..., 0]
    assert frame.sum() == 48 - 2 * 4 and not frame[2:4, 2:6].any()


def test_a_file_holds_a_mask(tmp_path):
    path = tmp_path / "face.npy"
    for shape in ((6, 8), SHAPE):
        mask = np.random.RandomState(0).rand(*shape) > 0.5
        np.save(path, mask)
        np.testing.assert_array_equal(region_mask(str(path), SHAPE)[0], mask.reshape(6, 8, -1))
    assert region_name(str(path)) == "region.face"
    for wrong in (np.ones((6, 8)), np.ones((8, 6), bool), np.zeros((6, 8), bool)):
        np.save(path, wrong)
        with pytest.raises(SettingError, match="--region"):
            region_mask(str(path), SHAPE)


@pytest.mark.parametrize("region", ["patch:1,2,3", "patch:1,2,6,4", "patch:1,2,0,4", "disc:3", "frame:0", "x.npy", "frame:-1"])
def test_what_is_no_region(region):
    with pytest.raises(SettingError, match="--region"):
        region_mask(region, SHAPE)
    with pytest.raises(SettingError, match="rows and columns"):
        region_mask("frame:1", (64,))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"goal": "targeted"}, "--goal = 'targeted': expected targeted:random"),
        ({"goal": "targeted:next", "attack": "pgd,deepfool"}, "--attack = 'deepfool': expected one of pgd,.* with --goal"),
        ({"goal": "targeted:next", "top_k": 2}, "--top-k = 2: expected 1"),
        ({"top_k": 0}, "--top-k = 0: expected a whole number"),
        ({"top_k": 5, "attack": "fgsm"}, "--attack = 'fgsm': expected one of pgd, apgd-ce.* with --top-k 5"),
        ({"region": "patch:1,1,2,2", "attack": "autoattack"}, "--attack = 'autoattack': expected one of pgd.* with --region"),
        ({"region": "here"}, "--region = 'here'"),
        ({"max_passes": 2000}, "--max-passes = 2000: expected an attack of minimal norm"),
        ({"count_passes": True}, "--count-passes = True: expected an attack of minimal norm"),
        ({"max_passes": 2000, "attack": "fmn", "steps": 10}, "--steps = 10: expected none with --max-passes"),
    ],
)
def test_plans_that_make_no_sense(given, told):
    with pytest.raises(SettingError, match=told):
        AttackPlan(**given).check()


def test_plans_hold_what_came_later_only_where_it_is_set():
    assert not {"goal", "top_k", "region", "max_passes", "count_passes"} & AttackPlan().as_dict().keys()
    assert AttackPlan(top_k=5).as_dict()["top_k"] == 5
    plan = AttackPlan(attack="pgd,apgd-ce", norm="linf,l2", region="frame:1", steps=3).check()
    names = [threat.name for threat in plan.threats(Bounds(), (6, 8, 3))]
    assert names[0] == "pgd-3-frame.1-linf" and names[-1] == "apgd-ce-3-frame.1-l2"
    assert plan.threats(Bounds(), (6, 8, 3)) == plan.threats(Bounds(), (6, 8, 3))  # so that nothing is compiled twice
    assert [threat.name for threat in AttackPlan(attack="ddn", norm="l2", max_passes=100).threats(Bounds(), (2, 2, 1), 3)] == [
        "ddn-49-l2"
    ]
