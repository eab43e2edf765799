"""How the site is built from these pages and the docstrings: `make docs`. It loads nothing from elsewhere, built or read."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

from sphinx.util import logging

import bap_jax

logger = logging.getLogger(__name__)
HERE = Path(__file__).resolve().parent
project, author, release = "bap_jax", "the bap_jax authors", bap_jax.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme, html_title = "furo", f"bap_jax {release}"
exclude_patterns = ["_build", "requirements.txt", "*.csv"]
templates_path: list[str] = []

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 170
nb_execution_in_temp = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and units stand in the text; the signature has the annotations
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_admonition_for_examples = napoleon_use_rtype = False
napoleon_custom_sections = [("References", "References")]
nitpicky = False
suppress_warnings = [
    "ref.python",  # `Array`, `Batch`, … are offered by several packages; each leads to one of them
    "myst.header",  # pages that hold several titles
]

# A package offers what its __all__ says. The modules behind it hold that and their own helpers, which no page is owed.
LAYERS = [one.name for one in pkgutil.iter_modules(bap_jax.__path__) if one.ispkg and one.name != "cli"] + ["errors", "types"]
OUTSIDE = {"../CONTRIBUTING.md": "contributing.md", "../examples": "examples.md", "../examples/": "examples.md"}


def offered(layer: str) -> dict[str, object]:
    """What a layer offers, by name."""
    package = importlib.import_module(f"bap_jax.{layer}")
    names = getattr(package, "__all__", None) or [
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == package.__name__
    ]
    return {name: getattr(package, name) for name in names}


def _complete(app, env) -> None:
    """Every name that a layer offers stands in the reference, with a text of its own.

    sphinx.ext.coverage cannot be asked: it does not find modules that share their name with the function they hold, and passes
    over what a package imports.
    """
    there = env.domaindata["py"]["objects"]
    for layer in LAYERS:
        for name, value in offered(layer).items():
            full = f"bap_jax.{layer}.{name}"
            if full not in there:
                logger.warning("%s is offered and stands nowhere in the reference", full)
            elif (inspect.isclass(value) or inspect.isfunction(value)) and not (value.__doc__ or "").strip():
                logger.warning("%s has no docstring", full)


def _write_reference(app) -> None:
    """A page per layer, and the list of them."""
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    for layer in LAYERS:
        package = importlib.import_module(f"bap_jax.{layer}")
        lines = [
            f"# bap_jax.{layer}",
            "",
            (package.__doc__ or "").strip(),
            "",
            "```{eval-rst}",
            f".. module:: bap_jax.{layer}",
            "",
        ]
        for name, value in offered(layer).items():
            if not (inspect.isclass(value) or inspect.isfunction(value)):  # a table or an alias: its type says nothing of it
                lines += [f".. py:data:: {name}", ""]
                continue
            kind = "class" if inspect.isclass(value) else "function"
            lines.append(f".. auto{kind}:: bap_jax.{layer}.{name}")
            lines += ["   :members:", "   :no-index-entry:"] if kind == "class" and _documents_members(value) else []
            lines.append("")
        _write(folder / f"{layer}.md", "\n".join([*lines, "```", ""]))
    names = [name for name in bap_jax.__all__ if name not in LAYERS]
    index = ["# Reference", "", "`import bap_jax as bap` offers the layers below, and of them, by their names alone:", ""]
    index += [", ".join(f"`bap.{name}`" for name in names) + ".", "", "```{toctree}", ":maxdepth: 1", "", *LAYERS, "```", ""]
    _write(folder / "index.md", "\n".join(index))


def _documents_members(value: type) -> bool:
    return not issubclass(value, tuple) and not issubclass(value, Exception)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:  # an unchanged page is not built again
        path.write_text(text, encoding="utf-8")


def _links(app, name: str, text: list[str]) -> None:
    """Pages link to files of the repository as it lies on a disk; here those that are pages too, and the others are named."""

    def led(found: re.Match) -> str:
        label, target, anchor = found[1], found[2], found[3] or ""
        if target in OUTSIDE:
            return f"[{label}]({OUTSIDE[target]}{anchor})"
        return f"{label} (`{target.removeprefix('../')}`)" if target.startswith("../") else found[0]

    text[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(([^)#]*)(#[^)]*)?\)", led, text[0])


def _literal(app, what: str, name: str, value: object, options, lines: list[str]) -> None:
    """Docstrings are written for a screen: a star or a bar in them is one, and no markup."""
    for i, line in enumerate(lines):
        parts = re.split(r"(``.*?``|:\w+:`.*?`)", line)
        parts[::2] = [re.sub(r"(?<![\\*])(\*{1,2}|\|)(?=\S)", r"\\\1", part) for part in parts[::2]]
        lines[i] = "".join(parts)


def setup(app) -> None:
    """What sphinx calls."""
    app.connect("builder-inited", _write_reference)
    app.connect("source-read", _links)
    app.connect("env-check-consistency", _complete)
    app.connect("autodoc-process-docstring", _literal, priority=400)
