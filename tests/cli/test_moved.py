"""Old names of modules that users' sweep files import."""

import importlib

import pytest

from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Process, Sweep


@pytest.mark.parametrize(
    ("old", "new", "offered"),
    [
        ("bap_jax.cli.grid", "bap_jax.sweeps.grid", (Sweep, Process)),
        ("bap_jax.cli.plan", "bap_jax.runs.plan", (AttackPlan,)),
        ("bap_jax.cli.settings", "bap_jax.runs.settings", (Settings,)),
    ],
)
def test_an_old_name_works_and_tells_the_new_one(old, new, offered):
    module = importlib.import_module(old)
    for thing in offered:
        with pytest.warns(FutureWarning, match=f"{old} is {new} now"):
            assert getattr(module, thing.__name__) is thing
    with pytest.raises(AttributeError):
        module.nothing  # noqa: B018
