"""What lies in a run folder, read: files that may have been edited since, cut off, or written by another version."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bap_jax.errors import SettingError
from bap_jax.evaluation import Check
from bap_jax.report import check_rows
from bap_jax.runs.parsing import of_type
from bap_jax.runs.settings import General, Settings
from bap_jax.runs.slots import SLOTS, place_of, told_options

RECORD = {"step": int, "plan": dict, "rows": list, "checks": list, "versions": dict}  # what every evaluation holds
PLAN = ("attack", "norm", "epsilon", "split", "checkpoint", "seed")


def settings_in(path: str | Path) -> Settings:
    """The settings in a config.json, each of its own type; whether they make sense is for ``Settings.check`` to say. Those that
    an earlier version did not have yet mean what it did (:func:`bap_jax.runs.migrations.migrated`).

    Args:
      path: the file.

    Raises:
      FileNotFoundError: it is not there.
      SettingError: it is no JSON object, has a setting that this version does not know, or one of another type; the error names
        the file.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "config.json"
      >>> path.write_text('{"seed": 1, "learning_rate": 1}')
      31
      >>> settings_in(path).learning_rate
      1.0
      >>> path.write_text('{"seed": "one"}') and settings_in(path)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: seed = 'one': expected a whole number, in .../config.json
    """
    from bap_jax.checkpoint import read_json  # orbax takes its time
    from bap_jax.runs.migrations import migrated

    return settings_from(migrated(read_json(path)), f", in {path}")


def settings_from(config: Mapping[str, Any], where: str = "") -> Settings:
    """The settings in a configuration of today's schema, each of its own type.

    Args:
      config: what :func:`bap_jax.runs.migrations.migrated` returns.
      where: the end of an error, such as ``, in config.json``.

    Raises:
      SettingError: a setting that this version does not know, or one of another type.
    """
    types = typing.get_type_hints(General)
    given: dict[str, Any] = {}
    for name, value in config.items():
        if name in types:
            given[name] = of_type(name, value, types[name], where)
        elif name == "phases":
            given[name] = _phases(value, where)
        elif name != "schema" and place_of(name) is None:
            expected = f"no such setting in this version; another one wrote it{where}"
            raise SettingError(name, value, expected)
    kinds = Settings(**{name: value for name, value in given.items() if name != "phases"})
    for slot in SLOTS:
        told = {
            name.partition(".")[2]: value for name, value in config.items() if name.partition(".")[0] == slot and name != slot
        }
        given[f"{slot}_options"] = told_options(slot, kinds.kind(slot), kinds.options(slot), told, where)
    return Settings(**given)


def _phases(value: Any, where: str) -> Any:
    fits = isinstance(value, Mapping) and all(isinstance(changes, Mapping) for changes in value.values())
    if not fits:
        raise SettingError("phases", value, f"settings of phases by their names{where}")
    return value


def differences(settings: Settings, other: Settings) -> list[tuple[str, Any, Any]]:
    """(setting, its value, that of the other settings) wherever they differ.

    Example:
      >>> differences(Settings(seed=1), Settings())
      [('seed', 1, 0)]
    """
    mine, theirs = settings.as_dict(), other.as_dict()
    names = dict.fromkeys([*mine, *theirs])
    return [(name, mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)]


def read_evaluation(path: str | Path) -> dict[str, Any]:
    """What :func:`bap_jax.runs.evaluate.evaluate_run` wrote, from its file.

    Raises:
      SettingError: it is not what is written there; the error names the file and what is wrong in it.
    """
    from bap_jax.checkpoint import read_json

    record = read_json(path)
    for name, kind in RECORD.items():
        if not isinstance(record.get(name), kind):
            raise SettingError(str(path), _entry(name, record.get(name)), f"a {name}, as bap evaluate writes it")
    for name in PLAN:
        if name not in record["plan"]:
            raise SettingError(str(path), _entry("plan", record["plan"]), f"a plan with its {name}, as bap evaluate writes it")
    for check in record["checks"]:
        if not (isinstance(check, dict) and check.keys() >= set(Check._fields)):
            raise SettingError(str(path), _entry("checks", check), "checks as bap evaluate writes them")
    try:
        check_rows(record["rows"])
    except (SettingError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise SettingError(str(path), "rows", f"rows as bap evaluate writes them ({error})") from None
    return record


def _entry(name: str, value: Any) -> str:
    return f"{name}: {value!r}"[:80]
