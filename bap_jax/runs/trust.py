"""Whose code may run: a stored configuration may name code (``package.module:factory``), and may be a stranger's.

Such a name is imported and called only if the user has given it himself. What he trained, or trusted once, in a folder is
remembered, outside of that folder: a folder cannot vouch for itself.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bap_jax.atomic import json_text, write_atomic
from bap_jax.errors import RunWarning, SettingError
from bap_jax.plugins import is_import_path
from bap_jax.runs.settings import PLUGINS

CODE = ("data", *PLUGINS)  # settings that may name code
NETWORK = ("data", "model")  # those of them that a trained network is rebuilt and attacked with
_OPTION = re.compile(rf"--({'|'.join(CODE)})(=|$)")
_NAMESPACE = re.compile(r"[^:/]+:(?![\d*])")  # TFDS loads the code of namespace:name from the net; name:3.0.1 has a version


class Trust(NamedTuple):
    """What the user allows besides what is remembered.

    Attributes:
      everything: whatever the configurations name that are read (``--trust``).
      names: these names, which he gave himself: on the command line, or in his sweep.
    """

    everything: bool = False
    names: frozenset[str] = frozenset()


NOTHING = Trust()


def names_in(arguments: Sequence[str]) -> frozenset[str]:
    """The names of code that a command line gives as settings; a folder of such a name gives none.

    Example:
      >>> sorted(names_in(["evaluate", "evil:run", "--model", "mine:net", "--attack=pgd,mine:attack", "--data", "mnist:3.0.1"]))
      ['mine:attack', 'mine:net']
    """
    pairs = itertools.zip_longest(arguments, arguments[1:], fillvalue="")
    given = [word.partition("=")[2] or then for word, then in pairs if _OPTION.match(word)]
    return frozenset(name for value in given for name in value.split(",") if is_import_path(name))


def code_in(config: Mapping[str, Any], of: Collection[str] = CODE) -> dict[str, str]:
    """The settings of a configuration that name code, with the names.

    Args:
      config: settings and their values.
      of: the settings to look at.

    Example:
      >>> code_in({"data": "mnist:3.0.1", "model": "mine:net", "budget": "uniform", "cutoff": "quantile:0.5"})
      {'model': 'mine:net'}
      >>> code_in({"phases": {"finetune": {"budget": "mine:rings"}}})
      {'finetune.budget': 'mine:rings'}
    """
    given = {name: config.get(name) for name in CODE if name in of}
    phases = config.get("phases")
    for phase, changes in phases.items() if isinstance(phases, Mapping) else ():
        if isinstance(changes, Mapping):
            given |= {f"{phase}.{name}": changes.get(name) for name in CODE if name in of}
    return {name: value for name, value in given.items() if isinstance(value, str) and _names_code(name, value)}


def _names_code(setting: str, value: str) -> bool:
    return is_import_path(value) or (setting == "data" and bool(_NAMESPACE.match(value)))


def check_trust(
    config: Mapping[str, Any], folder: str | Path, trust: Trust, uses: Collection[str] = CODE, *, file: str = "config.json"
) -> None:
    """Refuses names of code that came out of a folder's configuration and that the user has not given himself.

    With ``trust.everything`` they are remembered, so that they need not be trusted again.

    Args:
      config: the settings that are about to be used.
      folder: the folder that they were read from.
      trust: what the user allows.
      uses: the settings of which something is going to be imported.
      file: the name of the file in it.

    Raises:
      SettingError: naming the file, the settings and what they would run.
    """
    named = {setting: name for setting, name in code_in(config, uses).items() if name not in trust.names}
    foreign = {setting: name for setting, name in named.items() if name not in remembered(folder)}
    if not foreign:
        return
    if not trust.everything:
        expected = (
            "no code but what you name yourself: --trust allows to import and to call what is named here, whatever that does; "
            "see docs/trust.md"
        )
        raise SettingError(os.path.join(os.fspath(folder), file), foreign, expected)
    remember(folder, foreign.values())


def remember(folder: str | Path, names: Iterable[str]) -> None:
    """Notes that the user runs these names of code in this folder; warns where the note cannot be written."""
    names = set(names)
    if not names:
        return
    known = remembered(folder)
    if names <= known:
        return
    note, path = {"folder": _place(folder), "names": sorted(names | known)}, _note(folder)
    try:
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        write_atomic(path, json_text(note, indent=1) + "\n")
    except OSError as error:
        text = f"{path} cannot be written ({error.strerror}): using {folder} again will take --trust"
        warnings.warn(text, RunWarning, stacklevel=2)


def remembered(folder: str | Path) -> frozenset[str]:
    """The names of code that the user has run or trusted in this folder; none where the note is absent or damaged."""
    try:
        note = json.loads(_note(folder).read_text(encoding="utf-8"))
        return frozenset(note["names"]) if note["folder"] == _place(folder) else frozenset()
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def _place(folder: str | Path) -> str:
    return os.path.realpath(os.path.expanduser(os.fspath(folder)))


def _note(folder: str | Path) -> Path:
    """The file of what is remembered about a folder: one each, so that processes do not get into each other's way."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "bap_jax" / "trusted" / (hashlib.sha256(_place(folder).encode()).hexdigest() + ".json")
