"""`haast generate --prompts`: a file of prompts, a line an answer, figures beside them."""

import json
from io import StringIO

import pytest
from rich.console import Console

from haast import LLM
from haast.cli import report
from haast.engine.engine import Engine

EAGLE, PIANO = "What is a bald eagle?", "What is a piano?"
GREEDY = ("--temperature", "0", "--reasoning-effort", "low")
FIGURES = [
    "requests",
    "prompt tokens",
    "prompt speed",
    "generated tokens",
    "output speed",
    "wall time",
]


@pytest.fixture
def prompts(tmp_path):
    """Writes lines, given as values or as text, and gives the file."""

    def write(*lines):
        path = tmp_path / "prompts.jsonl"
        texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        path.write_bytes(b"\n".join(texts) + b"\n")
        return path

    return write


def chat(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def documents(outcome):
    return [json.loads(line) for line in outcome.out.splitlines()]


def answer_of(haast, prompt, *flags):
    return json.loads(haast("generate", "--prompt", prompt, *GREEDY, "--json", *flags).out)


def test_a_line_an_answer_in_order(haast, prompts):
    """Every spelling of a prompt; empty lines do not count."""
    path = prompts(EAGLE, {"prompt": "Hello"}, b"", b"  \r", {"messages": chat(PIANO)}, b"")
    outcome = haast("generate", "--prompts", path, *GREEDY)
    assert outcome.code == 0
    alone = [answer_of(haast, prompt) for prompt in (EAGLE, "Hello", PIANO)]
    assert documents(outcome) == [
        {
            "index": index,
            "text": one["text"],
            "reasoning": one["reasoning"],
            "finish_reason": "stop",
            "error": None,
            "prompt_tokens": one["timings"]["prompt_tokens"],
            "generated_tokens": one["timings"]["generated_tokens"],
            "cached_tokens": 0,
        }
        for index, one in enumerate(alone)
    ]
    assert outcome.err.startswith("model: ")
    rows = [line.strip("│ ").split("│") for line in outcome.err.splitlines() if "│" in line]
    values = {name.strip(): value.strip() for name, value in rows}
    assert [*values] == FIGURES and values["requests"] == "3"
    total = sum(one["timings"]["generated_tokens"] for one in alone)
    assert values["generated tokens"] == str(total)
    assert values["prompt speed"].endswith(" tokens/s") and values["wall time"].endswith(" s")


def test_a_conversation_and_a_prefix_of_it(haast, prompts):
    """One at a time, so that the first request's pages are there for the second."""
    long = [text for i in range(6) for text in (f"{EAGLE} {i}", "A large eagle of North America.")]
    path = prompts({"messages": chat(*long, PIANO)}, {"messages": chat(*long, EAGLE)})
    flags = ("--max-batch-size", 1, "--json", "--max-new-tokens", 5)
    first, second = documents(haast("generate", "--prompts", path, *GREEDY, *flags))
    assert first["cached_tokens"] == 0 and second["cached_tokens"] >= 128
    assert second["cached_tokens"] % 128 == 0 and second["finish_reason"] == "length"
    off = haast("generate", "--prompts", path, *GREEDY, *flags, "--no-enable-prefix-caching")
    assert [d["cached_tokens"] for d in documents(off)] == [0, 0]


def test_json_leaves_standard_error_alone(haast, prompts):
    outcome = haast("generate", "--prompts", prompts("Hello", EAGLE), *GREEDY, "--json")
    assert outcome.err == "" and len(documents(outcome)) == 2


def watched_batches(monkeypatch):
    """Requests of each step that was launched."""
    sizes, launch = [], Engine._launch
    monkeypatch.setattr(
        Engine, "_launch", lambda self, step: sizes.append(len(step.requests)) or launch(self, step)
    )
    return sizes


def test_prompts_run_together(haast, prompts, monkeypatch):
    sizes = watched_batches(monkeypatch)
    path = prompts(*[f"Define {i}." for i in range(70)])
    few = ("--max-new-tokens", 2, "--max-length", 200)
    assert len(documents(haast("generate", "--prompts", path, *few))) == 70
    assert max(sizes) == 64
    sizes.clear()
    haast("generate", "--prompts", prompts("a", "b", "c"), *few, "--max-num-seqs", 2)
    assert max(sizes) == 2


def test_answers_are_printed_as_soon_as_they_are_there(haast, prompts, monkeypatch):
    """The first may be read, or has been saved, when a later one is interrupted."""
    answers = LLM.answers

    def interrupted(self, inputs, params, **options):
        results = answers(self, inputs, params, **options)
        yield next(results)
        raise KeyboardInterrupt

    monkeypatch.setattr(LLM, "answers", interrupted)
    outcome = haast("generate", "--prompts", prompts("Hello", EAGLE), *GREEDY)
    assert outcome.code == 130 and [d["index"] for d in documents(outcome)] == [0]


@pytest.mark.parametrize(
    "flags", [("--prompts",), ("--prompt", "Hello"), ("--prompt", "Hi", "--json")]
)
def test_a_failing_device_is_an_exit_code(haast, prompts, monkeypatch, flags):
    def failing(*arguments):
        raise RuntimeError("device lost")

    monkeypatch.setattr("haast.model.gpt_oss.GptOss.forward", failing)
    flags = ("--prompts", prompts("Hello", EAGLE)) if flags == ("--prompts",) else flags
    outcome = haast("generate", *flags)
    assert outcome.code == 1 and "RuntimeError: device lost" in outcome.err.splitlines()[-1]
    if outcome.out.strip():
        assert {d["error"] for d in documents(outcome)} == {"RuntimeError: device lost"}
        assert {d["finish_reason"] for d in documents(outcome)} == {"error"}


KINDS = 'must be a JSON string, {"prompt": "..."} or {"messages": [...]}'
BAD_LINES = {
    "no JSON": (b"What is it?", f"not JSON (Expecting value at character 1); {KINDS}"),
    "cut": (
        b'{"prompt": "a',
        f"not JSON (Unterminated string starting at at character 12); {KINDS}",
    ),
    "number": (b"5", f"{KINDS}; got 5"),
    "list": (b'["a"]', f'{KINDS}; got ["a"]'),
    "empty object": (b"{}", f"{KINDS}; got {{}}"),
    "both": (b'{"prompt": "a", "messages": []}', f'{KINDS}; got {{"prompt": "a", "messages": []}}'),
    "unknown": (b'{"prompt": "a", "n": 2}', f'{KINDS}; got {{"prompt": "a", "n": 2}}'),
    "no text": (b'{"prompt": 5}', f'{KINDS}; got {{"prompt": 5}}'),
    "token ids": (b'{"messages": [1, 2]}', f'{KINDS}; got {{"messages": [1, 2]}}'),
    "long": (b'{"a": "' + b"x" * 99 + b'"}', f'{KINDS}; got {{"a": "{"x" * 50}...'),
    "deep": (b"[" * 100_000, f"too large a number or too deep; {KINDS}"),
    "bytes": (b'"\xff"', "not UTF-8"),
}


@pytest.mark.parametrize("line, words", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(refused, prompts, nothing_loads, line, words):
    path = prompts("Hello", b"", line, "Hello")
    text = refused("generate", "--prompts", path)
    assert text == f"{path}, line 3: {words}"


@pytest.mark.parametrize(
    "line, words",
    [
        ({"messages": []}, "messages is empty; at least one message is needed"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ("word " * 300, "exceed max_length 200"),
    ],
)
def test_a_prompt_that_cannot_run_is_named_before_any_runs(refused, prompts, line, words):
    path = prompts("Hello", line)
    text = refused("generate", "--prompts", path, "--max-length", 200)
    assert text.startswith(f"{path}, line 2: ") and words in text


def test_files_that_hold_nothing(refused, prompts, tmp_path, nothing_loads):
    missing = tmp_path / "none.jsonl"
    assert refused("generate", "--prompts", missing) == f"{missing}: No such file or directory"
    assert refused("generate", "--prompts", tmp_path) == f"{tmp_path}: Is a directory"
    path = prompts(b"", b"  ")
    assert refused("generate", "--prompts", path) == f"{path}: holds no prompts"
    text = refused("generate", "--prompts", path, "--prompt", "Hello")
    assert text == "--prompt and --prompts exclude each other"


def test_a_progress_bar_takes_no_lines_from_standard_output(haast, prompts, monkeypatch):
    """rich likes to print them on the bar's own terminal, which is standard error."""
    terminal = Console(file=StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(report, "console", lambda: terminal)
    outcome = haast("generate", "--prompts", prompts("Hello", EAGLE), *GREEDY)
    assert [d["index"] for d in documents(outcome)] == [0, 1]
    shown = terminal.file.getvalue()
    assert "answering" in shown and "2/2" in shown and "index" not in shown
