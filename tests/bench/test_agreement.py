"""Whether two ways to run a model agree, on the CPU with haast-tiny."""

import json
import shutil
from dataclasses import replace
from functools import cache

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from haast import ops
from haast.bench import agreement
from haast.bench.agreement import (
    Difference,
    Way,
    bf16_spacing,
    compare,
    first_difference,
    random_prompts,
    summary,
    table_lines,
    with_pins,
)
from haast.bench.machine import BenchError
from haast.cli.bench import command
from haast.config import EngineConfig
from haast.engine.load import prepare
from haast.engine.loading import load
from haast.engine.request import SamplingParams
from haast.engine.score import score
from haast.model.locate import demo_folder

PLAIN = EngineConfig(devices="cpu", max_batch_size=4, max_length=40, enable_prefix_caching=False)
COARSE = replace(PLAIN, kv_cache_format="float8_e4m3fn")
PROMPTS = random_prompts(6, 16, 4096, 3)
NUM_TOKENS = 10


def test_spacings_are_those_of_bf16():
    values = [1.0, 1.99, 2.0, -3.0, 0.75, 17.5, 255.0, 1e-3]
    for value in torch.tensor(values).bfloat16():
        above = (value.view(torch.int16) + 1).view(torch.bfloat16)
        assert bf16_spacing(value.item()) == abs(above.item() - value.item())


def test_prompts_are_a_function_of_the_seed():
    assert PROMPTS == random_prompts(6, 16, 4096, 3) != random_prompts(6, 16, 4096, 4)
    lengths = [len(prompt) for prompt in random_prompts(400, 20, 9, 1)]
    assert set(lengths) == set(range(1, 21))
    assert {i for prompt in random_prompts(400, 20, 9, 1) for i in prompt} == set(range(9))


def test_where_answers_part():
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 9, 9]) == 1


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More of them wait for each other where other tests run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    assert compare(Way(PLAIN, {}), [Way(dense, {})], PROMPTS, NUM_TOKENS) == [[]]


def test_differences_are_told_with_the_reference_s_margin(loads):
    ways = [Way(replace(PLAIN, max_batch_size=3), {}), Way(COARSE, {})]
    same, found = compare(Way(PLAIN, {}), ways, PROMPTS, NUM_TOKENS)
    assert same == []
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


def test_an_answer_ends_at_a_stop_token(loads):
    """What differs after it is no difference, and who stops sooner differs there."""
    whole, coarse = (
        [greedy(loads(wishes), prompt) for prompt in PROMPTS] for wishes in (PLAIN, COARSE)
    )
    parts = [first_difference(*pair) for pair in zip(whole, coarse, strict=True)]
    index = next(i for i, at in enumerate(parts) if at and coarse[i][at] not in whole[i][:at])
    one, other, at = whole[index], coarse[index], parts[index]
    for stop_id, differs in ((one[at - 1], False), (other[at], True)):
        (found,) = compare(
            Way(PLAIN, {}), [Way(COARSE, {})], [PROMPTS[index]], NUM_TOKENS, frozenset({stop_id})
        )
        assert [d.position for d in found] == [at] * differs, stop_id


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


def test_the_table_has_a_line_a_way():
    far = Difference(0, 3, (5, 6), margin=0.75, spacing=0.125)
    rows = {"other": summary([far], 1000, most=1), "control": summary([], 1000, most=1)}
    heads, *lines = (line.split() for line in table_lines(rows))
    assert heads == "prompts equal near-ties different largest margin".split()
    assert lines[0] == "other 1000 999 0 1 6.00 spacings".split()
    assert lines[1] == "control 1000 1000 0 0 0.00 spacings".split()


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
    common = ["--devices", "cpu", "--prompts", "6", "--output", "6"]
    return CliRunner().invoke(command, ["agree", *common, *options])


def test_the_command_tells_by_its_exit_code(tmp_path, monkeypatch):
    monkeypatch.undo()  # this one loads
    path = tmp_path / "r.jsonl"
    random = ["--prompts-of", "random", "--input", "9", "--out", str(path)]
    coarse, tight = "kv_cache_format=float8_e4m3fn", ["--spacings", "0.5"]
    outcome = agree(*random, "--other", coarse, *tight, "--control", "max_batch_size=3")
    assert outcome.exit_code == 1, outcome.output
    outcome = agree(*random, "--other", coarse, *tight, "--control", coarse)
    assert outcome.exit_code == 0, outcome.output
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["other"] == [coarse] and first["control"] == ["max_batch_size=3"]
    assert first["different"] > 0 and first["of_control"]["equal"] == 6
    counts = ("prompts", "equal", "near_ties", "different", "most_spacings", "differences")
    assert {name: second["of_control"][name] for name in counts} == {n: first[n] for n in counts}
    assert second["different"] == first["different"], "as often as the control"
    assert (second["prompts_of"], second["spacings"]) == ("random", 0.5)


def test_a_planted_change_is_seen_in_the_model_s_own_tongue(tmp_path, monkeypatch):
    monkeypatch.undo()
    folder = shutil.copytree(demo_folder(), tmp_path / "changed")
    path, name = folder / "model.safetensors", "model.layers.2.mlp.experts.down_proj_blocks"
    tensors = load_file(path)
    tensors[name] = tensors[name] >> 4 | tensors[name] << 4  # the pairs of one layer, swapped
    save_file(tensors, path, {"format": "pt"})
    coarse = "kv_cache_format=float8_e4m3fn"
    outcome = agree("--other", f"model_path={folder}", "--control", coarse, "--output", "14")
    assert outcome.exit_code == 1, outcome.output
    result = json.loads(outcome.output.splitlines()[-1])
    assert result["prompts_of"] == "coherence"
    assert result["different"] > 0 and result["of_control"]["equal"] == 6


def test_prompts_of_a_model_without_a_tongue():
    outcome = agree("--load-format", "dummy", "--prompts-of", "coherence")
    assert outcome.exit_code == 2 and "the model has no coherence.json" in outcome.output


@pytest.mark.parametrize("text", ["speed=1", "deterministic", "pin.moe_up", "=3"])
def test_what_is_no_way(text):
    outcome = agree("--reference", text)
    assert outcome.exit_code == 2 and f"'{text}' is neither FIELD=VALUE nor" in outcome.output
