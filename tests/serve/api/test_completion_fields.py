"""Each field of a plain completion: honoured, or refused with its name."""

import pytest

from haast.engine.request import SamplingParams
from haast.serve import fields

from .conftest import Api, events
from .spoken import SPECIAL, TOKENIZER, says

EAGLE = TOKENIZER.encode("An eagle é€ flies.")
PARAMS = [
    ({}, {"max_new_tokens": 16}),
    ({"max_tokens": 3, "temperature": 0.5}, {"max_new_tokens": 3, "temperature": 0.5}),
    ({"min_tokens": 20}, {"max_new_tokens": 20, "min_tokens": 20}),
    ({"logprobs": 0}, {"max_new_tokens": 16, "logprobs": 0}),
    ({"logprobs": 5}, {"max_new_tokens": 16, "logprobs": 5}),
    ({"n": 3, "seed": 4, "stop": "x"}, {"max_new_tokens": 16, "n": 3, "seed": 4, "stop": "x"}),
]


def said(script, **body):
    return Api(script).complete(**body).json()["choices"]


@pytest.mark.parametrize("body, expected", PARAMS, ids=str)
def test_sampling(api, body, expected):
    assert api.asked("completions", **body).params == SamplingParams(**expected)


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("Hello", [TOKENIZER.encode("Hello")]),
        (["Hello", "Why?"], [TOKENIZER.encode("Hello"), TOKENIZER.encode("Why?")]),
        ([5, 6], [[5, 6]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
        ("<|start|>", [TOKENIZER.encode("<|start|>")]),
        ("w " * 20_000, [TOKENIZER.encode("w " * 20_000)]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_prompts(prompt, expected):
    api = Api()
    api.engine.info = type(api.engine.info)(
        **{name: getattr(api.engine.info, name) for name in api.engine.info.__struct_fields__}
        | {"max_length": 100_000}
    )
    assert api.complete(prompt=prompt).status_code == 200
    assert sorted(asked.prompt_ids for asked in api.engine.asked) == sorted(expected)
    assert SPECIAL.start not in api.engine.asked[0].prompt_ids


def test_answers_to_several_prompts_are_numbered():
    def script(prompt_ids, params):
        return says([*EAGLE[: prompt_ids[0]], SPECIAL.return_])(prompt_ids, params)

    choices = said(script, prompt=[[1], [2], [3]], n=2)
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3, 4, 5]
    expected = [TOKENIZER.decode(EAGLE[:length]) for length in (1, 1, 2, 2, 3, 3)]
    assert [choice["text"] for choice in choices] == expected
    stream = events(Api(script).complete(prompt=[[1], [2], [3]], n=2, stream=True))
    texts = [""] * 6
    for (choice,) in (chunk["choices"] for chunk in stream):
        texts[choice["index"]] += choice["text"]
    assert texts == expected


@pytest.mark.parametrize("prompt", ["An owl", TOKENIZER.encode("An owl")], ids=["text", "ids"])
@pytest.mark.parametrize("stream", [False, True])
def test_echo(prompt, stream):
    api = Api(says([*EAGLE, SPECIAL.return_]))
    response = api.complete(prompt=prompt, echo=True, stream=stream)
    documents = events(response) if stream else [response.json()]
    text = "".join(choice["text"] for d in documents for choice in d["choices"])
    assert text == "An owlAn eagle é€ flies."


def test_special_tokens():
    ids = [SPECIAL.channel, *EAGLE, SPECIAL.end, *EAGLE, SPECIAL.return_]
    assert said(says(ids))[0]["text"] == "An eagle é€ flies.An eagle é€ flies."
    told = said(says(ids), skip_special_tokens=False)[0]["text"]
    assert told == "<|channel|>An eagle é€ flies.<|end|>An eagle é€ flies."
    told = said(says(ids, end="length"), skip_special_tokens=False)[0]["text"]
    assert told.endswith("flies.<|return|>")


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_stop_strings_and_tokens_are_no_part_of_the_answer(at_once):
    script = says([*EAGLE, SPECIAL.return_], at_once=at_once)
    (choice,) = said(script, stop=["€ f", "zz"])
    assert (choice["text"], choice["finish_reason"]) == ("An eagle é", "stop")
    script = says(EAGLE[:2], at_once=at_once)
    (choice,) = said(script, stop_token_ids=[EAGLE[1]])
    assert choice["text"] == TOKENIZER.decode(EAGLE[:1])
    (choice,) = said(says(EAGLE[:2], end="length", at_once=at_once), stop_token_ids=[EAGLE[1]])
    assert choice["text"] == TOKENIZER.decode(EAGLE[:2])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop, kept", [(None, len(EAGLE)), (" é", 2)])
def test_logprobs(stream, stop, kept):
    api = Api(says([*EAGLE, SPECIAL.return_]))
    response = api.complete(logprobs=2, stop=stop, stream=stream)
    documents = events(response) if stream else [response.json()]
    found = [c for d in documents for c in d["choices"]]
    text = "".join(choice["text"] for choice in found)
    parts = [choice["logprobs"] for choice in found if choice["logprobs"]]
    names = [name for part in parts for name in part["tokens"]]
    offsets = [offset for part in parts for offset in part["text_offset"]]
    assert len(names) == len(offsets) >= kept
    for name, offset in zip(names, offsets, strict=True):
        assert name.startswith("bytes:") or text[offset:].startswith(name)
    assert [v for part in parts for v in part["token_logprobs"]] == [-0.5] * len(names)
    first = parts[0]["top_logprobs"][0]
    assert first == {"An": -0.5, TOKENIZER.decode([EAGLE[0] + 1]): -1.5}


def test_a_character_cut_in_two_is_spelled_as_bytes():
    ids = TOKENIZER.encode("𝔊")
    assert len(ids) > 1
    (choice,) = said(says(ids, end="length"), logprobs=0)
    assert choice["text"] == "𝔊"
    assert choice["logprobs"]["tokens"][0].startswith("bytes:\\xf0")
    assert choice["logprobs"]["text_offset"] == [0] * len(ids)


REFUSED = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": ["a", ""]}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": ["a"] * 1025}, "prompt"),
    ({"echo": True, "logprobs": 1}, "echo"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"stream_options": {}}, "stream_options"),
]


@pytest.mark.parametrize("body, param", REFUSED, ids=lambda value: str(value)[:40])
def test_refusals_name_the_field(api, body, param):
    named, message = api.refused("completions", **body)
    assert named == param and param in message


@pytest.mark.parametrize("name", sorted(fields.REFUSED_IN_COMPLETIONS))
def test_known_fields_that_cannot_be_honoured(api, name):
    for allowed in (None, *fields.REFUSED_IN_COMPLETIONS[name]):
        assert api.complete(**{name: allowed}).status_code == 200
    assert api.refused("completions", **{name: "something else"})[0] == name
