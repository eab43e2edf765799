"""Make, or bring up to date, the environment that the Makefile's targets run in.

    python3 tools/environment.py FOLDER [--uv COMMAND]

The environment holds the pinned set of requirements.txt and this package in editable form. A record inside the folder
says what it was made from. The record is completed last, so that an interrupted run leaves an environment that the next
run makes anew; when it matches, nothing happens. Only the standard library is used, and of that not ensurepip: some
systems leave it out.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = "bap_jax-environment.json"
PARTIAL = RECORD + ".partial"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
NO_WAY = """\
{python} (Python {version}) cannot make an environment:
{tried}
Install one of these, then run make again:
  venv        on Debian and Ubuntu: apt install python{version}-venv
  pip         on Debian and Ubuntu: apt install python3-pip (22.3 or newer), or virtualenv
  uv          https://docs.astral.sh/uv"""


class Failure(Exception):
    """A reason to stop, in words for the person who typed make."""


def wanted(root: Path = ROOT) -> dict[str, str]:
    """What an environment for this checkout is made from."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    packaging = [project.get("build-system"), project.get("project"), project.get("tool", {}).get("setuptools")]
    return {
        "python": VERSION,
        "repository": str(root),
        "requirements": hashlib.sha256((root / "requirements.txt").read_bytes()).hexdigest(),
        "project": hashlib.sha256(json.dumps(packaging, sort_keys=True).encode()).hexdigest(),
    }


def recorded(folder: Path) -> dict[str, str]:
    """The record of a usable environment; {} where there is none, or its Python has gone."""
    try:
        return json.loads((folder / RECORD).read_text()) if python_in(folder).exists() else {}
    except (OSError, ValueError):
        return {}


def write_record(folder: Path, content: dict[str, str]) -> None:
    (folder / PARTIAL).write_text(json.dumps(content, indent=1) + "\n")
    os.replace(folder / PARTIAL, folder / RECORD)


def python_in(folder: Path) -> Path:
    return folder / "bin" / "python"


def clear(folder: Path) -> None:
    """Empty the folder and mark it as ours. A folder that this script did not make is left alone."""
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if folder.exists() and RECORD not in names and (not folder.is_dir() or names - {PARTIAL}):
        raise Failure(f"VENV = {folder}: expected a new folder or one that make made; remove it or name another")
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, {})  # before anything goes, so that an interrupted clearing can be taken up again
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != RECORD:
            entry.unlink()


def attempt(tried: list[str], *command: str) -> bool:
    """Run a command quietly; when it fails, note its last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        tried.append(f"  {' '.join(command)}: {error.strerror}")
        return False
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        tried.append(f"  {' '.join(command)}: {words}")
    return done.returncode == 0


def environment_for_uv(folder: Path, uv: str, tried: list[str]) -> list[str] | None:
    """An environment without pip, and the command by which uv installs into it; None where uv does not run."""
    if not uv or not attempt(tried, uv, "--version"):
        return None
    clear(folder)
    made = attempt(tried, sys.executable, "-m", "venv", "--without-pip", str(folder)) or attempt(
        tried, uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)
    )
    return [uv, "pip", "install", "--python", str(python_in(folder))] if made else None


def environment_with_pip(folder: Path, uv: str, tried: list[str]) -> list[str] | None:
    """An environment with a pip of its own, by whatever this machine offers, and the command by which it installs."""
    me, target, pip = sys.executable, str(folder), str(python_in(folder))
    ways: list[list[list[str]]] = [
        [[me, "-m", "venv", target]],
        [[me, "-m", "venv", "--without-pip", target], [me, "-m", "pip", "--python", pip, "install", "--quiet", "pip"]],
        [[me, "-m", "virtualenv", "--quiet", target]],
        [["virtualenv", "--quiet", "--python", me, target]],
        *([[[uv, "venv", "--quiet", "--allow-existing", "--seed", "--python", me, target]]] if uv else []),
    ]
    for way in ways:
        clear(folder)
        if all(attempt(tried, *command) for command in way) and attempt(tried, pip, "-m", "pip", "--version"):
            return [pip, "-m", "pip", "--disable-pip-version-check", "install"]
    return None


def install(command: list[str], *arguments: str) -> bool:
    """Run an installer in the open, so that its progress is seen."""
    return subprocess.run([*command, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL).returncode == 0


def fill(command: list[str]) -> bool:
    """The pins, then this package without asking for dependencies again."""
    return install(command, "-r", "requirements.txt") and install(command, "--no-deps", "-e", ".")


def build(folder: Path, uv: str) -> list[str]:
    """A new environment, filled; returns the command that installs into it."""
    tried: list[str] = []
    made = False
    makers: list[Callable[[Path, str, list[str]], list[str] | None]] = [environment_for_uv, environment_with_pip]
    for maker in makers:
        command = maker(folder, uv, tried)
        if command is None:
            continue
        made = True
        how = "uv" if command[0] == uv else "pip (a minute or two)"
        print(f"Installing the pinned requirements into {folder} with {how}", flush=True)
        if fill(command):
            return command
        print(f"{' '.join(command)} failed", file=sys.stderr, flush=True)
    if made:
        raise Failure(f"The requirements could not be installed into {folder}; the reason stands above. Run make again to retry.")
    raise Failure(NO_WAY.format(python=sys.executable, version=VERSION, tried="\n".join(tried)))


def prepare(folder: Path, uv: str) -> None:
    """Bring the environment up to date: nothing, the package alone, or everything anew."""
    want, have = wanted(), recorded(folder)
    if have == want:
        return
    if have and {**have, "project": want["project"]} == want:  # the pins are in place: only entry points or ranges changed
        if not install(installer_of(folder, uv), "--no-deps", "-e", "."):
            raise Failure(f"The package could not be installed into {folder}; the reason stands above.")
    else:
        build(folder, uv)
    write_record(folder, want)


def installer_of(folder: Path, uv: str) -> list[str]:
    pip = [str(python_in(folder)), "-m", "pip"]
    if attempt([], *pip, "--version"):
        return [*pip, "--disable-pip-version-check", "install"]
    return [uv, "pip", "install", "--python", str(python_in(folder))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--uv", default="uv", help="the uv command; an empty string for pip alone")
    arguments = parser.parse_args()
    with open(__file__) as lock:  # two makes at once: the second waits, then finds the work done
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            prepare(Path(os.path.abspath(arguments.folder)), arguments.uv)
        except Failure as failure:
            sys.exit(f"\n{failure}")
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
