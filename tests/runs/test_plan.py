"""What a plan of attacks makes of its flags."""

import pytest

from bap_jax.errors import SettingError
from bap_jax.runs.plan import AttackPlan
from bap_jax.types import Bounds


def made(**flags):
    return AttackPlan(**flags).check().threats(Bounds())


def settings(attack):
    return dict(getattr(attack, "attack", attack).settings)


def test_queries_reach_square_within_a_cascade():
    (mine,) = made(attack="cascade:apgd-ce+square", queries=7)
    assert settings(mine.stages[1].attack)["num_queries"] == 7 and "num_steps" not in settings(mine.stages[0].attack)
    (auto,) = made(attack="autoattack", queries=7, steps=3)
    assert auto.name == "autoattack-3-7q-linf"  # not the published one, and told apart from it
    assert [settings(auto.stages[i].attack).get("num_steps") for i in range(3)] == [3, 3, 3]
    assert settings(auto.stages[3].attack)["num_queries"] == 7
    assert made(attack="autoattack")[0].name == "autoattack-linf"


@pytest.mark.parametrize("flags", [
    {"attack": "cascade:apgd-ce+fmn", "queries": 7}, {"attack": "autoattack-rand", "queries": 7},
    {"attack": "autoattack", "restarts": 2}, {"attack": "cascade:fgsm", "steps": 2},
])  # fmt: skip
def test_a_flag_that_reaches_nothing_is_refused(flags):
    with pytest.raises(SettingError, match=f"--{next(name for name in flags if name != 'attack')} = "):
        made(**flags)


def test_a_part_of_a_cascade_in_the_wrong_norm_blames_the_norm():
    with pytest.raises(
        SettingError, match=r"--norm = 'linf': expected a norm of every part of cascade:apgd-ce\+cw.*l2 with --attack cw"
    ):
        made(attack="cascade:apgd-ce+cw")
    assert [threat.norm for threat in made(attack="cascade:apgd-ce+cw", norm="linf,l2", epsilon="0.1")] == ["l2"]
    assert [threat.norm for threat in made(attack="autoattack", norm="linf,l0", epsilon="linf=0.1;l0=3")] == ["linf"]
    with pytest.raises(SettingError, match=r"--norm = 'l0': expected linf or l2 or l1 with --attack autoattack"):
        made(attack="autoattack", norm="l0")
