"""The journal as a picture, and `haast journal` as a program."""

import pytest

from haast.__main__ import main
from haast.baseline import kernels as kernels_module
from haast.baseline import machine, running
from haast.baseline.document import path_of, write
from haast.baseline.entry import Entry, Facts
from haast.baseline.errors import BaselineError
from haast.baseline.history import draw, series
from haast.baseline.journal import LOG
from haast.bench import plot as plot_module
from tests.baseline.made_up import MACHINE, Runs, baseline, coherence, decode


def entry(commit, value, metric="decode_b1", gpu="NVIDIA H100"):
    facts = Facts(commit, "b", "c0", f"{gpu}, driver 580.1, torch 2.11", "pass")
    row = (metric, "50 %", f"{value} %", "+1.0 %", "3.0 %", "same", "500 tokens/s")
    return Entry("2026-11-26", "t", facts, (row,))


BY_HAND = Entry("2026-11-25", "words", None, ())
NEWEST_FIRST = [
    entry("c4", 61),
    entry("c3", 70, "moe_t64"),
    BY_HAND,
    entry("c2", 80, gpu="NVIDIA H200"),
    entry("c1", 60),
]


def test_a_series_a_metric_and_a_machine_oldest_first():
    labels, found = series(NEWEST_FIRST, ())
    assert [label.split("\n")[0] for label in labels] == ["c1", "c2", "c3", "c4"]
    assert [(s.metric, s.machine, s.places, s.values) for s in found] == [
        ("decode_b1", "NVIDIA H100", (0, 3), (60.0, 61.0)),
        ("decode_b1", "NVIDIA H200", (1,), (80.0,)),
        ("moe_t64", "NVIDIA H100", (2,), (70.0,)),
    ]
    assert [s.metric for s in series(NEWEST_FIRST, ["moe_t64"])[1]] == ["moe_t64"]


def test_nothing_to_draw():
    with pytest.raises(BaselineError, match="no entry has a metric gone; there are decode_b1, moe"):
        series(NEWEST_FIRST, ["moe_t64", "gone"])
    with pytest.raises(BaselineError, match="no entry has a metric; haast journal add makes them"):
        series([BY_HAND], ())


def test_the_picture():
    figure = draw(*series(NEWEST_FIRST, ()))
    (axes,) = figure.axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[0, 3], [1], [2]]
    assert [list(line.get_ydata()) for line in axes.lines] == [[60, 61], [80], [70]]
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == [f"c{number}\n2026-11-26" for number in (1, 2, 3, 4)]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[:2] == ["decode_b1, NVIDIA H100", "decode_b1, NVIDIA H200"]
    assert axes.get_ylabel() == "% of the floor" and axes.get_ylim()[0] == 0
    assert axes.lines[0].get_marker() != axes.lines[1].get_marker()


@pytest.fixture
def program(tmp_path, monkeypatch, capsys):
    """program(*words, **results) -> exit code, output, error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kernels_module, "build_kernels", lambda: None)
    monkeypatch.setattr(machine, "_first_gpu", lambda: ("NVIDIA Test", "580.1", "9.0"))
    write(baseline(), path_of("made"))

    def run(*words, **results):
        monkeypatch.setattr(running, "run_case", Runs(**results))
        with pytest.raises(SystemExit) as ended:
            main(["journal", *words])
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_add_list_and_plot(program, tmp_path):
    LOG.write_text("# Log\n\n## 2026-11-01 By hand\n\nWords.\n")
    code, out, _ = program("add", "Nothing new\n\nIt was to bring nothing.")
    assert code == 0 and out.endswith("good\nadded to LOG.md\n")
    slow = decode(b1=50.0, b64=70.0)
    assert program("add", "Slower", "--baseline", "made", decode=slow)[0] == 1
    assert program("add", "Nonsense", coherence=coherence(False))[0] == 1
    text = LOG.read_text()
    assert "- moe_up: 64 `moe_gather -> moe_mma`" in text and "It was to bring nothing." in text
    assert "haast bench decode --batch 1,64" in text and text.endswith("By hand\n\nWords.\n")

    lines = program("list")[1].splitlines()
    assert [line.split()[-1] for line in lines] == ["Nonsense", "Slower", "new", "hand"]
    assert [line.split()[2] for line in lines] == ["FAIL", "pass", "pass", "-"]
    assert "NVIDIA Test" in lines[0] and "NVIDIA" not in lines[3]
    lines = program("list", "--metric", "decode_b1")[1].splitlines()
    assert len(lines) == 2 and "50 %    -16.7 %      worse  Slower" in lines[0]

    code, out, err = program("plot", "picture.png", "--metric", "decode_b1")
    assert (code, out, err) == (0, "wrote picture.png\n", "")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_measured_is_not_written(program):
    code, out, _ = program("add", "Nothing", decode="ended with code 2")
    assert code == 125 and "cannot be told" in out and not LOG.exists()


def test_refusals_before_anything_runs(program):
    code, _, err = program("add", "two\n# headings")
    assert (code, err.count("\n")) == (2, 1) and "begins with #" in err
    code, _, err = program("add", "x", "--baseline", "gone")
    assert code == 2 and "there is no baseline bench/baselines/gone.json" in err
    write(baseline("other"), path_of("other"))
    code, _, err = program("add", "x")
    assert code == 2 and "there is made, other in bench/baselines; name one: --baseline" in err
    assert program("list")[0] == program("plot", "a.png")[0] == 2
    assert not LOG.exists()


def test_the_baseline_of_this_machine_is_found(program):
    other = MACHINE.__class__(**vars(MACHINE) | {"gpu": "NVIDIA Other"})
    write(baseline("other", machine=other), path_of("other"))
    write(baseline("cpu", kind="cpu"), path_of("cpu"))
    assert program("add", "x")[0] == 0
    assert "against baseline made of commit abc1234" in " ".join(LOG.read_text().split())


def test_pictures_that_cannot_be_drawn(program, monkeypatch):
    program("add", "x")
    assert "a.gif: a picture's name must end in .png" in program("plot", "a.gif")[2]
    monkeypatch.setattr(plot_module, "find_spec", lambda name: None)
    code, _, err = program("plot", "a.png")
    wanted = "haast journal plot needs matplotlib; run: pip install 'haast[plot]'"
    assert code == 2 and wanted in err
