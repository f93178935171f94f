"""haast-tiny with grammars, on the CPU and where there is one on a GPU, replayed and eager."""

import json

import pytest

from haast import LLM, SamplingParams
from haast.bench.machine import why_no_hopper
from haast.coherence.suite import read_suite
from haast.grammars import json_piece, regex_piece
from haast.harmony import Tokenizer
from haast.harmony.grammar import text_grammar
from haast.model.locate import demo_folder
from haast.prompt import ChatOptions, PromptBuilder

ON_GPU = pytest.mark.skipif(why_no_hopper() is not None, reason=str(why_no_hopper()))
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["noun", "verb"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["kind", "count"],
    "additionalProperties": False,
}
GRAMMAR = text_grammar(json_piece(SCHEMA, is_strict=True))
CODE = text_grammar(regex_piece("[A-F]{3}-[0-9]{4}"))
FREE = {"max_new_tokens": 24, "seed": 3, "temperature": 1.0}


@pytest.fixture(
    scope="module",
    params=["cpu", pytest.param("gpu", marks=ON_GPU), pytest.param("gpu exact", marks=ON_GPU)],
)
def llm(request):
    devices, _, is_exact = request.param.partition(" ")
    return LLM(devices=devices, max_batch_size=64, max_length=640, deterministic=bool(is_exact))


@pytest.fixture(scope="module")
def prompts():
    tokenizer = Tokenizer(demo_folder() / "tokenizer.json")
    questions = [question for question, _ in read_suite(demo_folder()).answers[:40]]
    return [PromptBuilder(tokenizer).ids(q, ChatOptions("low")) for q in questions]


def run(llm, asks):
    """Requests of (prompt, fields of SamplingParams), together to their ends."""
    requests = [llm.engine.submit(prompt, SamplingParams(**fields))[0] for prompt, fields in asks]
    while llm.engine.has_work:
        llm.engine.step()
    assert llm.engine.kv.full.num_held == 0
    return requests


def bound(seed, **fields):
    return {"grammar": GRAMMAR, "max_new_tokens": 90, "seed": seed} | fields


def assert_counts(llm, request):
    assert (request.finish_reason, request.error) == ("stop", None)
    given = json.loads(llm.tokenizer.decode(request.output_ids))
    assert {*given} == {"kind", "count"} and given["kind"] in ("noun", "verb")
    assert type(given["count"]) is int and 1 <= given["count"] <= 99


@pytest.mark.parametrize("count", [1, 8, 9, 40])
def test_every_answer_is_of_its_grammar(llm, prompts, count):
    """Logits of up to 8 rows lie in a CUDA graph, those of more do not."""
    if llm.device.type == "cpu" and count > 1:
        pytest.skip("there are no graphs on a CPU")
    for request in run(llm, [(prompts[i], bound(i)) for i in range(count)]):
        assert_counts(llm, request)


def test_grammars_beside_each_other_and_none(llm, prompts):
    count = 40 if llm.device.type == "cuda" else 5
    fields = [
        bound(1, logprobs=2),
        FREE,
        {"grammar": CODE, "seed": 2, "min_tokens": 30, "temperature": 1.5, "n": 2},
        bound(4, frequency_penalty=0.5, ignore_eos=True),
        FREE | {"allowed_token_ids": [100, 200, 300], "logprobs": 0},
    ]
    requests = run(llm, [(prompts[i], fields[i % 5]) for i in range(count)])
    for i, request in enumerate(requests):
        if i % 5 in (0, 3):
            assert_counts(llm, request)
        if i % 5 == 2:
            code = llm.tokenizer.decode(request.output_ids)
            assert len(code) == 8 and code[3] == "-" and code[4:].isdecimal(), code
        if i % 5 == 4:
            assert {*request.output_ids} <= {100, 200, 300} and request.finish_reason == "length"
    assert requests[0].logprobs and len(requests[0].logprobs) == len(requests[0].output_ids)


@ON_GPU
def test_neighbours_do_not_matter(prompts):
    exact = LLM(devices="gpu", max_batch_size=16, max_length=640, deterministic=True)
    free = [(prompt, FREE) for prompt in prompts[:3]]
    constrained = [(prompt, bound(7)) for prompt in prompts[3:6]]
    alone = [run(exact, [one])[0].output_ids for one in [*free, *constrained]]
    together = run(exact, [*free, *constrained])
    assert [request.output_ids for request in together] == alone


@ON_GPU
def test_replayed_and_eager_steps_give_the_same(prompts):
    llm = LLM(devices="gpu", max_batch_size=16, max_length=640, deterministic=True)
    assert llm.plan.has_graphs
    asks = [(prompt, bound(5)) for prompt in prompts[:12]]
    for count in (4, 12):
        run(llm, asks[:count])  # captured the second time
        replayed = [r.output_ids for r in run(llm, asks[:count])]
        graphs, llm._loaded.runner._graphs = llm._loaded.runner._graphs, None
        eager = [r.output_ids for r in run(llm, asks[:count])]
        llm._loaded.runner._graphs = graphs
        assert replayed == eager
