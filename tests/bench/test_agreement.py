"""Whether two ways to run a model agree, on the CPU with haast-tiny."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from click.testing import CliRunner

from haast import ops
from haast.bench import agreement
from haast.bench.agreement import (
    Difference,
    Way,
    bf16_spacing,
    compare,
    first_difference,
    prompts_of,
    summary,
    with_pins,
)
from haast.bench.machine import BenchError
from haast.cli.bench import command
from haast.config import EngineConfig
from haast.engine.load import load, prepare
from haast.engine.request import SamplingParams
from haast.engine.score import score

PLAIN = EngineConfig(devices="cpu", max_batch_size=4, max_length=40, enable_prefix_caching=False)
COARSE = replace(PLAIN, kv_cache_format="float8_e4m3fn")
PROMPTS = prompts_of(6, 16, 4096, 3)
NUM_TOKENS = 10


def test_spacings_are_those_of_bf16():
    values = [1.0, 1.99, 2.0, -3.0, 0.75, 17.5, 255.0, 1e-3]
    for value in torch.tensor(values).bfloat16():
        above = (value.view(torch.int16) + 1).view(torch.bfloat16)
        assert bf16_spacing(value.item()) == abs(above.item() - value.item())


def test_prompts_are_a_function_of_the_seed():
    assert PROMPTS == prompts_of(6, 16, 4096, 3) != prompts_of(6, 16, 4096, 4)
    lengths = [len(prompt) for prompt in prompts_of(400, 20, 9, 1)]
    assert set(lengths) == set(range(1, 21))
    assert {i for prompt in prompts_of(400, 20, 9, 1) for i in prompt} == set(range(9))


def test_where_answers_part():
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 9, 9]) == 1


@pytest.fixture(scope="module")
def load_once():
    """In place of loading: a model of the same wishes is loaded once in this module."""
    return cache(lambda way: load(prepare(way.wishes), frozenset()))


@pytest.fixture(autouse=True)
def loads(monkeypatch, load_once):
    monkeypatch.setattr(agreement, "_load", lambda way: load_once(Way(way.wishes, None)))
    return lambda wishes: load_once(Way(wishes, None))


def test_encodings_agree():
    dense = replace(PLAIN, quantization_encoding="bfloat16")
    assert compare(Way(PLAIN, {}), Way(dense, {}), PROMPTS, NUM_TOKENS) == []


def test_differences_are_told_with_the_reference_s_margin(loads):
    found = compare(Way(PLAIN, {}), Way(COARSE, {}), PROMPTS, NUM_TOKENS)
    assert 2 < len(found) <= 6 and len({d.prompt for d in found}) == len(found)
    ours, theirs = loads(PLAIN), loads(COARSE)
    for difference in found[:2]:
        index, position = difference.prompt, difference.position
        answer = greedy(ours, PROMPTS[index])
        other = greedy(theirs, PROMPTS[index])
        assert answer[:position] == other[:position]
        assert difference.token_ids == (answer[position], other[position])
        logits = score(ours, [*PROMPTS[index], *answer[:position]])[-1]
        own, its = (logits[i].item() for i in difference.token_ids)
        assert own == logits.max() and difference.spacing == bf16_spacing(own)
        assert difference.margin == pytest.approx(own - its, abs=1e-3)


def greedy(loaded, prompt):
    params = {"temperature": 0, "max_new_tokens": NUM_TOKENS, "ignore_eos": True}
    (request,) = loaded.engine.submit(prompt, SamplingParams(**params))
    while loaded.engine.has_work:
        loaded.engine.step()
    return request.output_ids


def test_near_ties_are_counted_apart():
    tie = Difference(0, 3, (5, 6), margin=0.125, spacing=0.125)
    wide = replace(tie, prompt=1, margin=0.25)
    found = summary([tie, wide], 10, most=1)
    assert (found["equal"], found["near_ties"], found["different"]) == (8, 1, 1)
    assert found["most_spacings"] == 2 and found["differences"][1]["spacings"] == 2
    assert summary([tie, wide], 10, most=2)["different"] == 0
    assert summary([], 10, most=1)["most_spacings"] == 0
    json.dumps(found)


def test_pins_are_put_on_top_of_the_plan():
    prepared = prepare(PLAIN)
    assert with_pins(prepared, {}).plan == prepared.plan
    pinned = with_pins(prepared, {"moe_up": "cuda_mma"}).plan
    assert pinned.pins == prepared.plan.pins | {"moe_up": "cuda_mma"}
    graphs = replace(prepared, plan=replace(prepared.plan, has_graphs=True))
    assert not with_pins(graphs, {"route": ops.REFERENCE}).plan.has_graphs
    for name, implementation, allowed in (
        ("moe_up", "quick", "reference, cuda_mma"),
        ("dance", "cuda_mma", "rms_norm, add_rms_norm"),
    ):
        with pytest.raises(BenchError, match=f"{name}={implementation}; there are {allowed}"):
            with_pins(prepared, {name: implementation})


def agree(*options):
    common = ["--devices", "cpu", "--prompts", "6", "--input", "9", "--output", "6"]
    return CliRunner().invoke(command, ["agree", *common, *options])


def test_the_command_tells_by_its_exit_code(tmp_path, monkeypatch):
    monkeypatch.undo()  # this one loads
    path = tmp_path / "r.jsonl"
    out = str(path)
    same = agree("--other", "max_batch_size=3", "--out", out)
    assert same.exit_code == 0, same.output
    assert "6 prompts x 6 tokens: 6 equal, 0 part at near-ties, 0 differ" in same.output
    coarse = agree("--other", "kv_cache_format=float8_e4m3fn", "--spacings", "0.5", "--out", out)
    assert coarse.exit_code == 1, coarse.output
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["other"] == ["max_batch_size=3"] and first["equal"] == 6
    assert second["different"] > 0 and second["spacings"] == 0.5


@pytest.mark.parametrize("text", ["speed=1", "deterministic", "pin.moe_up", "=3"])
def test_what_is_no_way(text):
    outcome = agree("--reference", text)
    assert outcome.exit_code == 2 and f"'{text}' is neither FIELD=VALUE nor" in outcome.output
