"""How an arm looks: one colour, marker and line for it in every picture of a report.

The colours are those of Okabe and Ito (Color Universal Design, 2008), which people with any common colour blindness tell apart,
without the yellow, which vanishes on white. Marker and line style differ as well, so that a black-and-white print can be read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple


class Style(NamedTuple):
    """Colour (hex), marker and line style in matplotlib's terms."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]
    width: float = 1.6


INK, GREY, FAINT, PAPER, EMPTY = "#1a1a1a", "#5c5c5c", "#d9d9d9", "#ffffff", "#ececec"
ON_DARK_CELL, ON_LIGHT_CELL = "#fefefe", "#010101"  # the numbers in a heat map, whose colours are the same in both schemes
CLEAN_STYLE = Style("#4d4d4d", "X", ":")
BLIND_STYLE = Style("#d55e00", "o", "-", 2.4)
_COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = ("s", "^", "D", "v", "P", "*", "<", "p")
_LINES = ("--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))

# Every colour of a picture that is not a measured value, with what it becomes on a dark page: text, lines and background change
# places; of the arms' colours those change that would sink into the background or come too near to another.
DARK = MappingProxyType(
    {INK: "#ececf0", GREY: "#aeb2ba", FAINT: "#3b4048", PAPER: "#202328", EMPTY: "#343941", CLEAN_STYLE.colour: "#b4b4b4"}
    | dict(
        zip(
            (BLIND_STYLE.colour, *_COLOURS),
            ("#ee7420", "#3d8edb", "#1fb58c", "#d68fb6", "#e9a91a", "#a6dcfb", "#f6f6f6"),
            strict=True,
        )
    )
)


def arm_styles(arms: Sequence[str]) -> dict[str, Style]:
    """A style for every arm.

    The arm clean (or NT) is grey and the arm blind (or BAP) is vermilion, so that they look the same in every report; where no
    arm has just this name, the first one whose name begins with it. The others follow a list, in the order given. Beyond six,
    colours repeat with another marker and line.

    Example:
      >>> styles = arm_styles(["clean", "uniform 0.2", "blind"])
      >>> styles["blind"].colour, len({style.marker for style in styles.values()})
      ('#d55e00', 3)
    """
    clean, blind = (_first(arms, words) for words in ("clean|nt", "blind|bap"))
    styles: dict[str, Style] = {}
    for arm in arms:
        free = len([style for style in styles.values() if style not in (CLEAN_STYLE, BLIND_STYLE)])
        if arm == clean:
            styles[arm] = CLEAN_STYLE
        elif arm == blind:
            styles[arm] = BLIND_STYLE
        else:
            styles[arm] = Style(_COLOURS[free % 6], _MARKERS[free % 8], _LINES[free % 5])
    return {arm: styles[arm] for arm in arms}


def _first(arms: Sequence[str], words: str) -> str | None:
    """The arm with one of these names, else the first that begins with one."""
    begins = [arm for arm in arms if re.match(rf"({words})(?![a-z])", arm.lower())]
    return next((arm for arm in begins if re.fullmatch(words, arm.lower())), begins[0] if begins else None)
