"""Pictures inside a page: SVG that takes its colours from the page, so that it follows the reader's light or dark scheme."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from xml.etree import ElementTree

from bap_jax.report.style import DARK

_GLYPH = "scale(0.015625)"  # matplotlib's outlines of letters: 64 units a point
_DROPPED = frozenset({"metadata", "style", "title"})
_HREF = "{http://www.w3.org/1999/xlink}href"


class Inline(NamedTuple):
    """A picture as part of a page."""

    markup: str  # one <svg>; its colours are variables of the page, its ids begin with its name
    glyphs: Mapping[str, str]  # id → outline of the letters that it uses, the same for all pictures of a page
    width: float  # in CSS pixels


def inline_svg(svg: bytes, name: str) -> Inline:
    """matplotlib's SVG as it stands in a page.

    Colours of :data:`bap_jax.report.style.DARK` become variables ``--cRRGGBB`` (:func:`colour_rules` defines them), all others
    stay what they are; coordinates are rounded to a hundredth of a point; what is not drawn (metadata, comments, ids that nothing
    refers to) is left out.

    Args:
      svg: the file.
      name: of the picture; letters, digits and hyphens.

    Raises:
      xml.etree.ElementTree.ParseError: it is no SVG.

    Example:
      >>> svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 3 2"><path d="M 0.12345 1" style="fill: #1a1a1a"/></svg>'
      >>> inline_svg(svg, "x").markup
      '<svg viewBox="0 0 3 2"><path d="M 0.12 1" style="fill:var(--c1a1a1a)" /></svg>'
    """
    root = ElementTree.fromstring(svg)
    used = {match for element in root.iter() for value in element.attrib.values() for match in re.findall(r"#([\w.-]+)", value)}
    glyphs: dict[str, str] = {}
    _rewrite(root, name, used, glyphs)
    box = root.get("viewBox", "0 0 0 0")
    root.attrib.clear()
    root.set("viewBox", box)
    return Inline(ElementTree.tostring(root, encoding="unicode"), glyphs, float(box.split()[2]) * 4 / 3)


def _rewrite(element: ElementTree.Element, name: str, used: set[str], glyphs: dict[str, str]) -> None:
    element.tag = element.tag.rpartition("}")[2]
    element.text, element.tail = (text if text and text.strip() else None for text in (element.text, element.tail))
    for child in list(element):
        tag = child.tag.rpartition("}")[2]
        if tag == "path" and child.get("transform") == _GLYPH:
            outline = _round(child.get("d", ""))
            glyphs[child.get("id", "")] = f'<path id="{child.get("id")}" d="{outline}" transform="{_GLYPH}" />'
            element.remove(child)
            continue
        _rewrite(child, name, used, glyphs)
        if (tag in _DROPPED and element.tag != "g") or (tag in ("defs", "g") and len(child) == 0):
            element.remove(child)
    attributes = {}
    for key, value in element.attrib.items():
        if key == "id" and value not in used:
            continue
        attributes["href" if key == _HREF else key] = _attribute(key, value, name, glyphs)
    element.attrib.clear()
    element.attrib.update(attributes)


def _attribute(key: str, value: str, name: str, glyphs: Mapping[str, str]) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == _HREF:
        return value if not value.startswith("#") or value[1:] in glyphs or _is_glyph(value) else f"#{name}-{value[1:]}"
    if key in ("d", "x", "y"):
        return _round(value)
    if key == "style":
        value = re.sub(r"#[0-9a-f]{6}\b", lambda found: variable(found[0]) if found[0] in DARK else found[0], value)
        return re.sub(r"([:;]) ", r"\1", value)
    return re.sub(r"url\(#", f"url(#{name}-", value)


def _is_glyph(reference: str) -> bool:
    return re.fullmatch(r"#[A-Za-z]\w*-[0-9a-f]+", reference) is not None  # a font's name and a glyph's number


def _round(text: str) -> str:
    text = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), text)
    return " ".join(text.split())


def variable(colour: str) -> str:
    """The page's name for a colour: ``#1a1a1a`` → ``var(--c1a1a1a)``."""
    return f"var(--c{colour[1:]})"


def colour_rules(*, dark: bool) -> str:
    """The variables of a colour scheme, as CSS declarations.

    Example:
      >>> "--c1a1a1a:#1a1a1a;" in colour_rules(dark=False)
      True
    """
    return "".join(f"--c{light[1:]}:{DARK[light] if dark else light};" for light in DARK)
