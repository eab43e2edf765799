"""A report before it is a page: its sections and what stands in them, which HTML and Markdown then render alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bap_jax.report.measures import Grid
from bap_jax.report.rows import Row, arms_of, in_order
from bap_jax.report.table import Table
from bap_jax.types import Check

DEFINITIONS = {
    "AER score": "accuracy–efficiency–robustness, this project's own definition: the mean accuracy over the grid of sparsities "
    "and budgets (ε = 0, the clean images, included), over the cells that every arm has.",
    "Stability": "the standard deviation over pruning processes at each sparsity and ε, averaged over the same cells, in points. "
    "Lower is steadier; it needs two processes.",
    "Area": "the area under the security curve (accuracy over ε) divided by the range of ε, averaged over sparsities.",
    "Robust accuracy": "the share of images classified correctly under the named attack, "
    "averaged over the sparsities and all ε > 0.",
    "Budget sensitivity": "the largest minus the smallest AER score among the arms that train with a uniform budget.",
    "Regret": "the largest gap, over ε, to the best arm at that ε, of the means over sparsities, over the same cells, in points: "
    "what it costs not to know the budget of the attack. It depends on which arms are compared; 0 is the best at every ε.",
    "Attack": "every accuracy belongs to one attack in one norm, which is named beside it; no number mixes two. “Worst of a, b” "
    "is an attack of its own: an image counts as right only if it is right under each of them. An attack that fails proves "
    "nothing: robust accuracy is an upper bound.",
    "Distance": "of a minimal-norm attack: the norm of the smallest perturbation it found that changes the answer, over the "
    "images that are right without an attack. An upper bound of the true distance.",
    "Interval": "95 % percentile bootstrap over seeds, the same resampled seeds for every cell; in the bands of the security "
    "curves over seeds and processes. Not defined with one seed and then shown as “–”. With few seeds it is too narrow: a range, "
    "not a test.",
    "“–”": "not measured, or not defined. It is never counted as 0.",
}
MAX_SUMMARIES = 3  # comparisons that are summed up in full


class Picture(NamedTuple):
    """A picture: ``draw()`` gives the figure; ``name`` is its file's, without the ending."""

    name: str
    caption: str
    alt: str
    draw: Callable[[], Any]


class Section(NamedTuple):
    """A heading and what stands under it."""

    title: str
    paragraphs: tuple[str, ...] = ()
    lead: tuple[Table, ...] = ()  # stands above the pictures
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    more: tuple[Table, ...] = ()  # details, which a page shows on demand and leaves out if there is no room
    fold: str = ""  # what the details are called; by default how many tables they are


class Report(NamedTuple):
    """A whole report: who won and a picture of it, the scores, how to repeat it, whether to believe it, and then all the rest."""

    title: str
    summary: tuple[str, ...]
    checks: tuple[Check, ...]
    sections: tuple[Section, ...]
    trust: tuple[str, ...] = ()  # what the checks say of the arms
    lead: Picture | None = None
    scores: Table | None = None
    command: str = ""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, the lead first."""
        lead = () if self.lead is None else (self.lead,)
        return (*lead, *(picture for section in self.sections for picture in section.pictures))


def slug(text: str) -> str:
    """Letters, digits and hyphens only, for a file's name.

    Example:
      >>> slug("PGD-20 (L∞)")
      'pgd-20-l'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def comparison_names(grids: Sequence[Grid]) -> list[str]:
    """What each comparison's pictures are called after their kind: nothing for the first, a suffix for the others."""
    return [
        ""
        if i == 0
        else f"-{i + 1}-{slug(f'{g.comparison.data}-{g.comparison.model}-{g.comparison.attack}-{g.comparison.norm}')}"
        for i, g in enumerate(grids)
    ]


def known_arms(rows: Sequence[Row], *others: Mapping[str, Any] | None) -> list[str]:
    """The arms of the rows, then whatever other names histories and layers bring."""
    return in_order([*arms_of(rows), *(name for other in others for name in other or {})])
