"""A picture inside a page: its colours are the page's, its ids its own, and nothing of it points outside."""

import re
from xml.etree import ElementTree

import pytest

from bap_jax.report import figures
from bap_jax.report.inline import colour_rules, inline_svg
from bap_jax.report.measures import make_grid, measure
from bap_jax.report.rows import comparisons_of
from bap_jax.report.style import DARK, ON_DARK_CELL, ON_LIGHT_CELL, arm_styles


@pytest.fixture(scope="module")
def drawn(make_rows):
    rows = make_rows(seeds=(0,))
    grid = make_grid(rows, comparisons_of(rows)[0])
    bars, heat = (
        figures.scores_figure(grid, measure(grid, num_resamples=5)),
        figures.aer_figure(grid, measure(grid, num_resamples=5)),
    )
    return [inline_svg(figures.svg_bytes(figure), name) for name, figure in (("bars", bars), ("heat", heat))]


def test_colours_are_the_pages_but_for_measured_ones(drawn):
    bars, heat = drawn
    assert not set(re.findall(r"#[0-9a-f]{6}\b", bars.markup)) & DARK.keys()
    assert all(f"var(--c{style.colour[1:]})" in bars.markup for style in arm_styles(["clean", "blind", "x"]).values())
    assert len(set(re.findall(r"fill:(#[0-9a-f]{6})", heat.markup))) > 10  # cells keep the colour of their value
    assert ON_DARK_CELL in heat.markup and ON_LIGHT_CELL in heat.markup
    assert all(f"--c{light[1:]}:{dark};" in colour_rules(dark=True) for light, dark in DARK.items())


def test_a_dark_page_is_legible():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def contrast(one, other):
        light, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    paper = DARK["#ffffff"]
    assert contrast(DARK["#1a1a1a"], paper) > 7 and contrast(DARK["#5c5c5c"], paper) > 4.5  # WCAG 2.2, text
    arms = {style.colour for style in arm_styles([f"arm {i}" for i in range(6)] + ["clean", "blind"]).values()}
    assert len(arms) == 8 and all(contrast(DARK[colour], paper) > 3 for colour in arms)  # WCAG 2.2, graphical objects
    assert len({DARK[colour] for colour in arms}) == 8


def test_ids_are_its_own_and_every_reference_is_met(drawn):
    for image, name in zip(drawn, ("bars", "heat"), strict=True):
        ids = re.findall(r' id="([^"]+)"', image.markup)
        assert ids and len(ids) == len(set(ids)) and all(one.startswith(f"{name}-") for one in ids)
        references = set(re.findall(r'href="#([^"]+)"', image.markup)) | set(re.findall(r"url\(#([^)]+)\)", image.markup))
        assert references and references <= set(ids) | image.glyphs.keys()
        assert all(f'id="{glyph}"' in outline for glyph, outline in image.glyphs.items())
    assert drawn[0].glyphs.keys() & drawn[1].glyphs.keys()  # the page holds them once


def test_it_stands_alone_and_is_well_formed(drawn):
    for image in drawn:
        ElementTree.fromstring(image.markup)
        assert "http" not in image.markup and "xmlns" not in image.markup and "<!--" not in image.markup
        assert not re.search(r'd="[^"]*\d\.\d{3}', image.markup)  # a hundredth of a point is enough
        assert image.width > 300


def test_what_is_no_svg_is_refused():
    with pytest.raises(ElementTree.ParseError):
        inline_svg(b"not a picture", "x")
