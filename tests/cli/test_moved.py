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


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("bap_jax.evaluation", "Source", "Surrogate"),
        ("bap_jax.report", "Scene", "Comparison"),
        ("bap_jax.report", "scenes_of", "comparisons_of"),
    ],
)
def test_an_old_name_in_its_module_works_and_tells_the_new_one(module, old, new):
    found = importlib.import_module(module)
    with pytest.warns(FutureWarning, match=f"{module}.{old} is {new} now"):
        assert getattr(found, old) is getattr(found, new)
    with pytest.raises(AttributeError):
        found.nothing  # noqa: B018
