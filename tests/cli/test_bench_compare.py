"""`haast bench compare`: files of all kinds, what differs, exit codes."""

import json

import pytest

from haast.baseline.document import write
from tests.baseline.made_up import baseline, decode


@pytest.fixture
def files(tmp_path):
    """files(A, B) -> their paths; a result each, a text as it is."""

    def make(*contents):
        paths = [tmp_path / name for name in ("A.json", "B.json")]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return paths

    return make


def words(out):
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    return {row[0]: row[5] for row in rows if row}


def test_better_same_and_worse(haast, files):
    before = decode(b1=60.0, b8=60.0, b64=60.0)
    paths = files(before, decode(b1=63.0, b8=60.5, b64=57.0))
    outcome = haast("bench", "compare", *paths)
    assert (outcome.code, outcome.err) == (1, "")
    assert words(outcome.out) == {"decode_b1": "better", "decode_b8": "same", "decode_b64": "worse"}
    assert haast("bench", "compare", *paths, "--tolerance", 6).code == 0
    assert haast("bench", "compare", paths[1], paths[0]).code == 1, "b1 is worse the other way"


def test_what_was_measured_differently_is_said(haast, files):
    first = decode(b1=60.0) | {"encoding": "mxfp4", "input": 1024, "date": "2026-11-01"}
    second = decode(b1=60.0) | {"encoding": "bfloat16", "input": 1024, "gpu": "NVIDIA H200"}
    outcome = haast("bench", "compare", *files(first, second))
    assert outcome.code == 0 and outcome.out.splitlines()[:2] == [
        'encoding: "mxfp4", then "bfloat16"',
        'gpu: null, then "NVIDIA H200"',
    ]


def test_the_last_line_of_a_file_counts(haast, files):
    printed = "a table\n" + json.dumps(decode(b1=60.0)) + "\n"
    appended = f"{json.dumps(decode(b1=10.0))}\n{json.dumps(decode(b1=60.1))}\n"
    outcome = haast("bench", "compare", *files(printed, appended))
    assert outcome.code == 0 and words(outcome.out) == {"decode_b1": "same"}


def test_baselines_with_their_noise(haast, files, tmp_path):
    paths = files("", decode(b1=50.0))
    write(baseline(), paths[0])
    outcome = haast("bench", "compare", paths[0], paths[0])
    assert outcome.code == 0 and set(words(outcome.out).values()) == {"same"}
    outcome = haast("bench", "compare", *paths)
    assert outcome.code == 1 and words(outcome.out)["prefill_1024"] == "missing"


def test_a_row_that_is_missing_or_new(haast, files):
    outcome = haast("bench", "compare", *files(decode(b1=60.0, b8=1.0), decode(b1=60.0, b64=2.0)))
    assert outcome.code == 125
    assert words(outcome.out) == {"decode_b1": "same", "decode_b8": "missing", "decode_b64": "new"}


@pytest.mark.parametrize(
    "content, text",
    [
        ("", "B.json: neither a baseline nor a JSON result in its last line"),
        ("no\n", "B.json: neither a baseline nor a JSON result in its last line"),
        ('{"a": 1}', "B.json: not a baseline"),
        ('{"bench": "generate"}', "no bench 'generate' has numbers to compare"),
        ({"bench": "throughput", "output_tokens_per_s": 3.0}, "have no metric in common"),
    ],
)
def test_files_that_cannot_be_compared(refused, files, content, text):
    assert text in refused("bench", "compare", *files(decode(b1=60.0), content))


def test_a_file_that_is_not_there(refused, files):
    paths = files(decode(b1=60.0), decode(b1=60.0))
    paths[1].unlink()
    assert "B.json" in refused("bench", "compare", *paths)
    paths[1].write_bytes(b"\xff\xfe")
    assert "neither a baseline nor" in refused("bench", "compare", *paths)
