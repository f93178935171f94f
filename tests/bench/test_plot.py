"""The roofline: well-formed, inside its frame, and where logarithms put it."""

import re
from xml.etree import ElementTree

import pytest

from haast.bench.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Point, roofline

SVG = "{http://www.w3.org/2000/svg}"
POINTS = [Point(3.8, 9.0, "1"), Point(180.0, 450.0, "512"), Point(2500.0, 700.0, "8192")]


def dots(root):
    """(x, y, title) of every dot with a title."""
    return [
        (float(dot.get("cx")), float(dot.get("cy")), dot[0].text)
        for dot in root.iter(f"{SVG}circle")
        if dot[0].text
    ]


@pytest.fixture
def root(ceilings):
    text = roofline("a < b & c", ceilings, {"ours": POINTS, "theirs": POINTS[:1]})
    return ElementTree.fromstring(text)


def test_every_point_is_drawn_inside_the_frame(root):
    found = dots(root)
    assert [title for *_, title in found] == ["ours, 1", "ours, 512", "ours, 8192", "theirs, 1"]
    for x, y, _ in found:
        assert LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM


def test_axes_are_logarithmic(root):
    (x1, y1, _), _, (x3, y3, _), _ = dots(root)
    # three decades and a bit over four: 1 to 10^4 FLOP per byte, 1 to 10^3 TFLOP/s
    width, height = WIDTH - RIGHT - LEFT, HEIGHT - BOTTOM - TOP
    assert x3 - x1 == pytest.approx(width * 2.818 / 4, abs=1)
    assert y1 - y3 == pytest.approx(height * 1.891 / 3, abs=1)


def test_the_roof_bends_at_the_ridge(root):
    (roof,) = [line for line in root.iter(f"{SVG}polyline") if line.get("stroke-width") == "2"]
    corners = [tuple(map(float, pair.split(","))) for pair in roof.get("points").split()]
    (x1, y1), (x2, y2), (x3, y3) = corners
    assert x1 == LEFT and x3 == WIDTH - RIGHT and y2 == y3 < y1
    share = (x2 - LEFT) / (WIDTH - RIGHT - LEFT)
    assert 10 ** (4 * share) == pytest.approx(798 / 3.1, rel=0.02)


def test_texts_are_escaped_and_name_the_ceilings(root):
    texts = [node.text for node in root.iter(f"{SVG}text")]
    assert "a < b & c" in texts and "798 TFLOP/s" in texts and "3.10 TB/s" in texts
    assert [t for t in texts if t in ("ours", "theirs")] == ["ours", "theirs"]
    assert not any(re.search("nan|inf", text) for text in texts)
