"""``bap train --config``: stored settings are the defaults, the command line wins, and what differs is said."""

import json

import pytest

from bap_jax.checkpoint import read_config
from bap_jax.cli.commands import train
from bap_jax.runs.settings import Settings

OWN = "plugins_for_tests"
STORED = Settings(
    data=f"{OWN}:blobs",
    model=f"{OWN}:small",
    budget="none",
    batch_size=8,
    steps=2,
    seed=3,
    learning_rate=0.5,
    augment=True,
    optimizer="sgd",
    gradient_clip=1.0,
)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "theirs.json"  # the file that was named, whatever else lies beside it
    path.write_text(json.dumps(STORED.as_dict()))
    (tmp_path / "config.json").write_text("{}")
    return path


@pytest.fixture
def settings(monkeypatch, bap):
    """The settings that a command line comes to, without training, and what was said."""

    def of(*arguments):
        found = []
        monkeypatch.setattr(train, "check_out", lambda settings, *_: found.append(settings) or exit(0))
        code, output, error = bap("train", "--trust", *arguments)
        assert code == 0, error
        return found[0], " ".join(output.split())

    return of


def test_a_flag_counts_also_where_it_is_the_default(config, settings):
    given = ("--seed", 0, "--learning-rate", "1e-3", "--no-augment", "--optimizer", "adam")
    found, said = settings("--config", config, "--out", "x", *given)
    assert found.as_dict() == STORED.changed(seed=0, optimizer="adam", learning_rate=1e-3, augment=False).as_dict()
    assert f"settings of {config}, but optimizer adam (there sgd), optimizer.learning_rate 0.001 (there 0.5)," in said
    assert "augment False (there True), seed 0 (there 3)" in said


def test_a_flag_that_is_not_given_leaves_what_is_stored(config, settings):
    found, said = settings("--out", "x", "--config", config)
    assert found == STORED and f"settings of {config}, all of them" in said
    found, said = settings("--out", "x", f"--config={config}", "--steps", 5)
    assert found.steps == 5 and "but steps 5 (there 2)" in said


def test_a_run_repeats_another_but_for_a_flag(bap, config, tmp_path):
    code, _, error = bap("train", "--trust", "--config", config, "--gradient-clip", 0.5, "--out", tmp_path / "run")
    assert code == 0, error
    assert read_config(tmp_path / "run") == STORED.as_dict() | {"gradient_clip": 0.5}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"seed": 1', ["config.json = '{\"seed\": 1'", "a JSON object", "line 1 column 11"]),
        (b"", ["config.json = ''", "a JSON object"]),
        (b"\x89PNG\r\n\x1a\n\x00", ["config.json = ", "a JSON object", "utf-8"]),
        (b"[1, 2]", ["config.json = '[1, 2]'", "not a list"]),
        (b"[" * 100_000, ["config.json = ", "a JSON object"]),
        (b'{"seed": "1"}', ["seed = '1': expected a whole number, in ", "config.json"]),
        (b'{"seed": true}', ["seed = True: expected a whole number"]),
        (b'{"seed": null}', ["seed = None: expected a whole number"]),
        (b'{"augment": 1}', ["augment = 1: expected true or false"]),
        (b'{"steps": 1.5}', ["steps = 1.5: expected a whole number or null"]),
        (b'{"learning_rate": "0.1"}', ["learning_rate = '0.1': expected a number"]),
        (b'{"model": ["mlp"]}', ["model = ['mlp']: expected a text"]),
        (b'{"norm": "l3"}', ["norm = 'l3': expected linf, l2, l1, rms"]),
        (b'{"budget": "uniform", "epsilon": "much"}', ["budget.epsilon = 'much': expected a number"]),
        (b'{"schema": 4}', ["schema = 4: expected at most 3: a later version of bap_jax wrote this"]),
        (b'{"schema": 2, "budget.epsilon": 0.1}', ["budget.epsilon = 0.1: expected nothing with --budget cutoff-scale"]),
        (b'{"sede": 1}', ["sede = 1: expected no such setting in this version"]),
    ],
)
def test_a_damaged_config_is_named_in_a_line(content, expected, refused, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    for command in (("train", "--config", tmp_path / "config.json", "--out", tmp_path / "run"), ("evaluate", tmp_path)):
        message = refused(*command)
        for part in expected:
            assert part in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["nowhere.json", "folder", "file/config.json"])
def test_a_config_that_is_not_there(place, refused, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    message = refused("train", "--config", tmp_path / place, "--out", tmp_path / "run")
    assert "--config = " in message and place in message and "a config.json, as a run folder holds one" in message


def test_a_whole_number_where_a_number_belongs_is_one(config, settings):
    config.write_text(json.dumps(STORED.as_dict() | {"optimizer.learning_rate": 1, "gradient_clip": 2}))
    found, _ = settings("--config", config, "--out", "x")
    assert repr((found.learning_rate, found.gradient_clip)) == "(1.0, 2.0)"
