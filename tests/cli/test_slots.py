"""`bap train` is read twice: first what fills the slots, then the options that these have."""

import subprocess
import sys

from bap_jax.cli.main import read
from bap_jax.cli.slots import settings_told
from bap_jax.runs.settings import Settings

OWN = "plugins_for_tests"
COMMANDS = ("", "train", "evaluate", "report", "export", "import", "data prepare", "sweep", "bench", "demo")


def told(*arguments: str) -> Settings:
    return Settings(**settings_told(read(["train", "--out", "x", *arguments])))


def test_options_are_those_of_the_kinds_that_are_named():
    assert told() == Settings()
    found = told(
        "--budget", "uniform", "--budget.epsilon", "8/255", "--optimizer=sgd", "--optimizer.nesterov", "--loss", "trades"
    )
    expected = Settings(budget="uniform", epsilon="8/255", optimizer="sgd", nesterov=True, loss="trades")
    assert found == expected and told("--budget.epsilon-max", "None", "--budget.scale", "1") == Settings(scale=1.0)


def test_flat_flags_of_before_mean_what_they_did_and_say_their_new_names(capsys):
    assert told("--scale", "1.4", "--attack-steps=3", "--scope", "global", "--learning_rate", "0.1") == Settings(
        scale=1.4, attack_steps=3, scope="global", learning_rate=0.1
    )
    said = capsys.readouterr().err
    assert (
        said.startswith("bap: note: --scale is --budget.scale, --attack-steps is --attack.num-steps, ") and said.count("\n") == 1
    )


def test_an_option_of_another_kind_is_refused(refused):
    line = refused("train", "--out", "x", "--budget", "uniform", "--scale", 2)
    assert "--scale = '2': expected nothing with --budget uniform; it is an option of cutoff-scale" in line


def test_keywords_of_ones_own_factory_are_its_options(plugins):
    found = told("--budget", f"{OWN}:rings", "--budget.radius", "0.25", "--budget.count", "2")
    assert found == Settings(budget=f"{OWN}:rings", **{"budget.radius": 0.25, "budget.count": 2})
    assert told("--budget", f"{OWN}:own_budget", "--epsilon", "0.25").value("budget.epsilon") == "0.25"


def test_help_shows_the_options_of_the_kinds_that_are_named(bap):
    code, output, _ = bap("train", "--help")
    assert code == 0 and "bap train --budget NAME --help" in " ".join(output.replace("│", " ").split())
    assert "--budget.scale" not in output and "--final-sparsity" in output
    code, output, _ = bap("train", "--budget", "cat", "--help")
    assert code == 0 and "--budget.label-factor" in output and "--optimizer.learning-rate" not in output


PROBE = """
import sys
from bap_jax.cli.main import main
for command in sys.argv[1:]:
    try:
        main([*command.split(), "--help"])
    except SystemExit as ended:
        assert not ended.code, command
print(sorted({"jax", "numpy", "optax", "flax"} & set(sys.modules)))
"""


def test_help_of_every_command_loads_no_jax():
    command = [sys.executable, "-c", PROBE, *COMMANDS]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
