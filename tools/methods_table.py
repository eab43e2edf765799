"""Write the table of methods into docs/methods.md, from the methods themselves.

python -m tools.methods_table
"""

from __future__ import annotations

from pathlib import Path

from bap_jax.methods import METHODS, method_of
from bap_jax.runs.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"
BEGIN, END = "<!-- begin: python -m tools.methods_table -->", "<!-- end -->"
HEAD = (
    "`--method`",
    "pipeline",
    "phases",
    "structure",
    "locality",
    "criterion",
    "attacks?",
    "pretrained?",
    "source",
    "what differs",
)


def phases_of(name: str) -> str:
    """A method's phases with their published lengths.

    Example:
      >>> phases_of("hydra")
      'pretrain 100, prune 20, finetune 100'
    """
    return ", ".join(f"{phase.name} {own.epochs}" for phase, own in Settings(method=name).in_phases())


def table() -> str:
    """The table as Markdown."""
    rows = [HEAD, ("---",) * len(HEAD)]
    for name in METHODS:
        method = method_of(name)
        taxonomy, settings = method.taxonomy, Settings(method=name)
        phases = phases_of(name) or f"train {settings.epochs}"
        asked = ["yes" if told else "no" for told in (taxonomy.attacks, taxonomy.pretrained)]
        place = (taxonomy.pipeline, phases, taxonomy.structure, taxonomy.locality, taxonomy.criterion)
        rows.append((f"`{name}`", *place, *asked, method.reference, method.differs))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def updated(page: str) -> str:
    """A page with today's table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
