"""Reading a sweep from a Python file, with errors that say what is wrong with it before any work starts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from bap_jax.errors import SettingError
from bap_jax.sweeps.grid import Sweep

NAME = "SWEEP"


def load_sweep(path: str | Path) -> Sweep:
    """The ``SWEEP`` that a file defines.

    What the file imports is looked for beside it, or, if it is in a package, beside that, as ``python -m`` would find it.

    Raises:
      SettingError: no such file, one that does not run, or one without a :class:`bap_jax.sweeps.grid.Sweep` of that name.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise SettingError("FILE", str(path), f"a Python file that defines {NAME}, such as experiments/digits_aer.py")
    root = str(_root(path.resolve()))
    if root not in sys.path:
        sys.path.insert(0, root)
    spec = importlib.util.spec_from_file_location(f"sweep_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except SettingError:
        raise
    except (Exception, SystemExit) as error:
        what = f"a file that Python can run; it ended with {type(error).__name__}: {error}"
        raise SettingError("FILE", str(path), what) from error
    if not hasattr(module, NAME):
        raise SettingError("FILE", str(path), f"a file that defines {NAME}; this one does not")
    sweep = getattr(module, NAME)
    if not isinstance(sweep, Sweep):
        raise SettingError(f"{NAME} in {path}", sweep, f"a bap_jax.sweeps.grid.Sweep, not a {type(sweep).__name__}")
    return sweep


def _root(path: Path) -> Path:
    """The folder that holds a file, or the outermost package that it is in."""
    folder = path.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder
