"""What becomes of every known way to leave the format."""

import time

import pytest

from haast.harmony import HarmonyParser, collect

from .spell import spell

THINK = "<|channel|>analysis<|message|>hm"
ANSWER = "<|start|>assistant<|channel|>final<|message|>4<|return|>"
HM, FOUR = ("analysis", None, None, "hm"), ("final", None, None, "4")
CALL = ("commentary", "functions.f", "json", "{}")
ARGS = ("commentary", "functions.f", None, "{}")

# name, stream, messages, anomalies
SHAPES = [
    ("nothing", "", [], {}),
    ("well formed", THINK + "<|end|>" + ANSWER, [HM, FOUR], {}),
    (
        "text after end",
        THINK + "<|end|>more thoughts<|return|>",
        [HM, ("analysis", None, None, "more thoughts")],
        {"missing_start": 1, "no_header": 1},
    ),
    (
        "text after an answer's end",
        "<|channel|>final<|message|>4<|end|> or 5<|return|>",
        [FOUR, ("final", None, None, " or 5")],
        {"missing_start": 1, "no_header": 1},
    ),
    (
        "text after a call's end",
        " to=functions.f<|channel|>commentary json<|message|>{}<|end|>Done.<|return|>",
        [CALL, ("analysis", None, None, "Done.")],
        {"missing_start": 1, "no_header": 1},
    ),
    (
        "no start",
        THINK + "<|end|>assistant<|channel|>final<|message|>4<|return|>",
        [HM, FOUR],
        {"missing_start": 1},
    ),
    (
        "no start, no role",
        THINK + "<|end|><|channel|>final<|message|>4<|return|>",
        [HM, FOUR],
        {"missing_start": 1},
    ),
    (
        "channel word only",
        THINK + "<|end|>commentary to=functions.f<|message|>{}<|call|>",
        [HM, ARGS],
        {"missing_start": 1, "missing_channel": 1},
    ),
    (
        "no channel marker",
        THINK + "<|end|><|start|>assistantfinal<|message|>4<|return|>",
        [HM, FOUR],
        {"missing_channel": 1},
    ),
    (
        "no channel at all",
        THINK + "<|end|><|start|>assistant<|message|>4<|return|>",
        [HM, FOUR],
        {"no_channel": 1},
    ),
    (
        "no channel, recipient",
        " to=functions.f json<|message|>{}<|call|>",
        [CALL],
        {"no_channel": 1},
    ),
    ("after call", "<|channel|>commentary to=functions.f<|message|>{}<|call|>x<|start|>",
     [ARGS], {"after_stop": 2}),
    ("after return", "<|channel|>final<|message|>4<|return|>5", [FOUR], {"after_stop": 1}),
    ("after endoftext", THINK + "<|endoftext|>" + ANSWER, [HM], {"after_stop": 7}),
    (
        "two starts",
        THINK + "<|end|><|start|><|start|>assistant<|channel|>final<|message|>4<|return|>",
        [HM, FOUR],
        {"double_start": 1},
    ),
    ("start repeated", ANSWER, [FOUR], {"double_start": 1}),
    ("eos in header", THINK + "<|end|><|start|>assistant<|channel|>final<|endoftext|>", [HM],
     {"missing_message": 1}),
    ("eos at once", "<|return|>", [], {"missing_message": 1}),
    ("end twice", THINK + "<|end|><|end|>" + ANSWER, [HM, FOUR], {}),
    (
        "channel without end",
        THINK + "<|channel|>final<|message|>4<|return|>",
        [HM, FOUR],
        {"missing_end": 1},
    ),
    (
        "assistant without end",
        THINK + "assistant<|channel|>final<|message|>4<|return|>",
        [HM, FOUR],
        {"missing_end": 1},
    ),
    ("start without end", THINK + ANSWER, [HM, FOUR], {"missing_end": 1}),
    ("question mark", "<|channel|>commentary?<|message|>4<|end|>",
     [("commentary", None, None, "4")], {"header_junk": 1}),
    ("question mark, call", "<|channel|>commentary? to=functions.f json<|message|>{}<|call|>",
     [CALL], {"header_junk": 1}),
    ("capital", "<|channel|>Final<|message|>4<|return|>", [FOUR], {}),
    (
        "doubled channel",
        "<|channel|>commentary to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
        [CALL],
        {"double_channel": 1},
    ),
    (
        "channel as recipient",
        "<|channel|>commentary to=assistant<|channel|>analysis<|message|>hm<|end|>",
        [HM],
        {"double_channel": 1, "no_tool_recipient": 1},
    ),
    (
        "assistant as recipient",
        THINK + "<|end|><|start|>assistant to=assistant<|channel|>final<|message|>4<|return|>",
        [HM, FOUR],
        {"no_tool_recipient": 1},
    ),
    (
        "channel corrected",
        "<|channel|>analysis<|channel|>final<|message|>4<|return|>",
        [FOUR],
        {"double_channel": 1},
    ),
    ("constrain response", "<|channel|>final <|constrain|>response<|message|>4<|return|>",
     [("final", None, "response", "4")], {}),
    ("glued answer", "<|channel|>finalHello you<|return|>",
     [("final", None, None, "Hello you")], {"missing_message": 1}),
    ("glued and marked", "<|channel|>finalHello<|message|>4<|return|>", [FOUR],
     {"header_junk": 1}),
    (
        "glued thoughts",
        "<|channel|>analysisWe need<|end|>" + ANSWER,
        [("analysis", None, None, "We need"), FOUR],
        {"missing_message": 1},
    ),
    (
        "glued thoughts, then a channel",
        "<|channel|>analysisWe need<|channel|>final<|message|>4<|return|>",
        [("analysis", None, None, "We need"), FOUR],
        {"double_channel": 1},
    ),
    ("glued arguments", "<|channel|>commentary to=functions.f json{}<|call|>", [CALL],
     {"missing_message": 1}),
    ("call without arguments", "<|channel|>commentary to=functions.f<|call|>",
     [("commentary", "functions.f", None, "")], {"missing_message": 1}),
    ("bare recipient", "<|channel|>commentary to=f <|constrain|>json<|message|>{}<|call|>",
     [CALL], {"bare_recipient": 1}),
    ("built-in tool", "<|channel|>analysis to=python code<|message|>1<|call|>",
     [("analysis", "python", "code", "1")], {}),
    ("recipient without name", " to=functions.<|channel|>commentary<|message|>{}<|call|>",
     [("commentary", "functions.functions", None, "{}")], {"bare_recipient": 1}),
    ("recipient of dots", "<|channel|>final to=.<|message|>Hi<|return|>",
     [("final", None, None, "Hi")], {"no_tool_recipient": 1}),
    ("recipient without to", "<|channel|>commentary functions.f<|message|>{}<|call|>", [ARGS], {}),
    ("constrain, space", " to=functions.f<|channel|>commentary <|constrain|> json<|message|>{}",
     [CALL], {}),
    ("constrain, no space", "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}",
     [CALL], {}),
    (
        "unknown channel",
        "<|channel|>thought<|message|>hm<|end|>" + ANSWER,
        [HM, FOUR],
        {"unknown_channel": 1},
    ),
    (
        "made-up user",
        THINK + "<|end|><|start|>user<|message|>Go on.<|end|>" + ANSWER,
        [HM, FOUR],
        {"foreign_message": 1},
    ),
    (
        "made-up tool result",
        THINK + "<|end|><|start|>functions.f to=assistant<|channel|>commentary<|message|>7<|end|>"
        + ANSWER,
        [HM, FOUR],
        {"foreign_message": 1},
    ),
    (
        "made-up result of a bare tool",
        THINK + "<|end|><|start|>f to=assistant<|channel|>commentary<|message|>7<|end|>" + ANSWER,
        [HM, FOUR],
        {"foreign_message": 1},
    ),
    ("message twice", "<|message|><|message|>4<|return|>", [FOUR],
     {"no_channel": 1, "stray_marker": 1}),
    ("stray markers", "<|channel|>final<|message|><|constrain|>4<|reserved_200000|><|return|>",
     [FOUR], {"stray_marker": 1, "special_token": 1}),
    ("no harmony", "Final answer: 4", [("final", None, None, "Final answer: 4")],
     {"no_header": 1}),
    ("no harmony, channel word", "final, then", [("final", None, None, ", then")],
     {"cut_header": 1}),
    ("no harmony, longer word", "finally 4", [("final", None, None, "finally 4")],
     {"cut_header": 1, "no_header": 1}),
    ("no harmony, blanks", "\n\n  Hi", [("final", None, None, "\n\n  Hi")], {"no_header": 1}),
    ("thoughts without markers", "analysisWe need", [("analysis", None, None, "We need")],
     {"cut_header": 1}),
    ("cut in the header", "<|channel|>commentary to=functions.f", [], {"cut_header": 1}),
    ("the word assistant", "<|channel|>final<|message|>assistant",
     [("final", None, None, "assistant")], {}),
]  # fmt: skip


@pytest.mark.parametrize(("stream", "messages", "anomalies"), [shape[1:] for shape in SHAPES],
                         ids=[shape[0] for shape in SHAPES])  # fmt: skip
def test_shape(tokenizer, stream, messages, anomalies):
    parser = HarmonyParser(tokenizer)
    for token_id in spell(stream, tokenizer):
        parser.feed(token_id)
    parser.finish()
    assert parser.anomalies == anomalies
    found = collect(spell(stream, tokenizer), tokenizer)
    assert [(m.channel, m.recipient, m.content_type, m.content) for m in found] == messages


def test_text_without_harmony_streams_at_once(tokenizer):
    parser = HarmonyParser(tokenizer)
    first, second = spell("Hello there", tokenizer)
    assert "".join(delta.text for delta in parser.feed(first)) == "Hello"
    assert "".join(delta.text for delta in parser.feed(second)) == " there"


def test_a_header_that_never_ends_is_not_kept_back_for_ever(tokenizer):
    parser = HarmonyParser(tokenizer)
    stream = spell("<|channel|>final" + "Yes. " * 200, tokenizer)
    shown = "".join(delta.text for token_id in stream[:100] for delta in parser.feed(token_id))
    assert shown.startswith("Yes. Yes. ")


@pytest.mark.parametrize(
    "stuck", ["<|channel|>", "<|constrain|>", "<|channel|>final", "<|start|>a"]
)
def test_a_model_stuck_on_markers_costs_linear_time(tokenizer, stuck):
    parser = HarmonyParser(tokenizer)
    began_s = time.process_time()
    for token_id in spell("<|constrain|><|channel|>", tokenizer) + spell(stuck, tokenizer) * 20_000:
        parser.feed(token_id)
    assert time.process_time() - began_s < 5
