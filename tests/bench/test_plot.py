"""The roofline: every point where it belongs, and the roof where the ceilings put it."""

from pathlib import Path

import pytest

from haast.bench import plot
from haast.bench.plot import Point, check_plot, roofline
from haast.errors import HaastError

POINTS = [Point(3.8, 9.0, "1"), Point(180.0, 450.0, "512"), Point(2500.0, 700.0, "8192")]


@pytest.fixture
def figure(ceilings):
    return roofline("a < b & c", ceilings, {"ours": POINTS, "theirs": POINTS[:1]})


def test_points_and_their_labels(figure):
    (axes,) = figure.axes
    _, ours, theirs = axes.lines
    assert list(ours.get_xdata()) == [3.8, 180.0, 2500.0]
    assert list(ours.get_ydata()) == [9.0, 450.0, 700.0]
    assert (list(theirs.get_xdata()), list(theirs.get_ydata())) == ([3.8], [9.0])
    assert [text.get_text() for text in axes.texts] == ["1", "512", "8192"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_title() == "a < b & c"


def test_the_roof_bends_at_the_ridge(figure):
    (axes,) = figure.axes
    roof = axes.lines[0]
    x, y = list(roof.get_xdata()), list(roof.get_ydata())
    assert x == pytest.approx([1.9, 798 / 3.1, 5000.0])
    assert y == pytest.approx([1.9 * 3.1, 798, 798])
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["3.10 TB/s, 798 TFLOP/s", "ours", "theirs"]


@pytest.mark.parametrize(
    "suffix, magic", [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_formats(figure, tmp_path, suffix, magic):
    path = tmp_path / f"roofline{suffix}"
    check_plot(path)
    figure.savefig(path)
    assert path.read_bytes().startswith(magic)


def test_another_format_is_refused():
    with pytest.raises(HaastError, match=r"^a\.gif: a picture's name must end in \.png, \.svg"):
        check_plot(Path("a.gif"))


def test_without_matplotlib(monkeypatch):
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(
        HaastError, match=r"^--plot needs matplotlib; run: pip install 'haast\[plot"
    ):
        check_plot(Path("a.png"))
