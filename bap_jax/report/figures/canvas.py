"""What every picture of a report starts from and ends with: matplotlib's settings for the time being, an empty figure, axes and
legend in one manner, PNG and SVG out of it.

matplotlib's objects alone are used: no pyplot, no state that outlives a call.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bap_jax.report.style import FAINT, GREY, INK, PAPER, Style

Styles = Mapping[str, Style]
SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "font.family": ["DejaVu Sans"],
    "axes.titlesize": 11,
    "axes.facecolor": PAPER,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a dollar in an arm's name is a dollar
    "svg.hashsalt": "bap_jax",  # the same figure gives the same bytes
    "svg.fonttype": "path",  # needs no font where it is read
}
_LOCK = threading.RLock()


@contextmanager
def drawing() -> Iterator[None]:
    """Our settings for the time being; one thread at a time, since matplotlib's are everyone's."""
    with _LOCK, matplotlib.rc_context(SETTINGS):
        yield


def render(figure: Figure) -> tuple[bytes, bytes]:
    """The figure as PNG and as SVG, laid out once."""
    png = png_bytes(figure)
    figure.set_layout_engine("none")
    return png, svg_bytes(figure)


def png_bytes(figure: Figure, dpi: int = 144) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with drawing():
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG, text as outlines, with the hover texts of :func:`tip`; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with drawing():
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(rb'<g id="tip:([^"]*)">', lambda found: b"<g><title>" + found[1] + b"</title>", buffer.getvalue())


def tip(artist: Artist, text: str) -> None:
    """What a page shows when the pointer rests on a mark, a bar or a number."""
    artist.set_gid(f"tip:{text}")


def empty_figure(width: float, height: float) -> Figure:
    """A figure on white, sides in inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)


def title(figure: Figure, text: str) -> None:
    """The figure's title, at its left edge, in as many lines as it needs."""
    figure.suptitle(textwrap.fill(text, max(20, int(10 * figure.get_figwidth()))), fontsize=12, x=0.01, ha="left")


def tidy(axes: Axes, grid: str = "both") -> None:
    """Axes without their upper and right edge, on a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis=grid, color=FAINT, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def handle(style: Style, marker: str = "") -> Line2D:
    """A line for a legend."""
    line: Any = style.line  # dash patterns are wider than matplotlib's annotation
    return Line2D([], [], color=style.colour, marker=marker, linestyle=line, linewidth=style.width)


def legend(figure: Figure, handles: Sequence[Line2D], names: Sequence[str], width: float) -> None:
    """The names below the figure, in as many columns as ``width`` inches take; beyond two lines of them the figure grows."""
    longest = 0.7 + 0.085 * max(len(name) for name in names)
    columns = max(1, min(len(names), int(width / longest)))
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, math.ceil(len(names) / columns) - 2))
    figure.legend(handles, list(names), loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2)


def arm_legend(figure: Figure, arms: Sequence[str], styles: Styles) -> None:
    """A legend of arms with line and marker."""
    legend(figure, [handle(styles[arm], styles[arm].marker) for arm in arms], arms, figure.get_figwidth())
