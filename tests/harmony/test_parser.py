"""Invariants of the parser over random streams, and agreement with openai-harmony's."""

import openai_harmony as oh
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.harmony import HarmonyParser, Message, Reply, collect, parse_reply, render_message

from .spell import spell
from .strategies import answers, functions, preambles, texts, thoughts

MARKERS = ["start", "end", "message", "channel", "constrain", "call", "return", "endoftext"]
pieces = st.one_of(
    st.sampled_from([f"<|{name}|>" for name in MARKERS]),
    st.sampled_from(["assistant", "analysis", "commentary", "final", "user", " to=functions.f"]),
    st.sampled_from([" json", "{}", " ", "\n", "?", "Hello", " world", "<|reserved_200000|>", "é"]),
)
streams = st.lists(pieces, max_size=25).map("".join)
calls = st.builds(
    Message,
    st.just("assistant"),
    texts,
    channel=st.sampled_from(["commentary", "analysis"]),
    recipient=functions | st.sampled_from(["python", "browser.search"]),
    content_type=st.none() | st.just("json"),
)
turns = st.tuples(st.lists(thoughts | preambles, max_size=4), answers | calls).map(
    lambda parts: [*parts[0], parts[1]]
)


def generated(messages, tokenizer):
    """Tokens a model generates for `messages`: without the prompt's `<|start|>assistant`."""
    ids = [token_id for message in messages for token_id in render_message(message, tokenizer)]
    return ids[2:]


def fields(message, text):
    return (message.channel, message.recipient, message.content_type, text)


@settings(max_examples=200, deadline=None)
@given(turns)
def test_well_formed_turns_come_back_and_openai_harmony_agrees(tokenizer, encoding, messages):
    tokens = generated(messages, tokenizer)
    parser = HarmonyParser(tokenizer)
    for token_id in tokens:
        parser.feed(token_id)
    assert parser.finish() == []
    assert not parser.anomalies
    assert collect(tokens, tokenizer) == messages
    theirs = oh.StreamableParser(encoding, oh.Role.ASSISTANT)
    for token_id in tokens:
        theirs.process(token_id)
    assert [fields(m, m.content[0].text) for m in theirs.messages] == [
        fields(m, m.content) for m in messages
    ]


@settings(max_examples=100, deadline=None)
@given(turns, st.data())
def test_a_cut_stream_says_a_prefix(tokenizer, messages, data):
    """Nothing that was sent is taken back, and only the cut character can differ."""
    tokens = generated(messages, tokenizer)
    whole = parse_reply(tokens, tokenizer)
    cut = parse_reply(tokens[: data.draw(st.integers(0, len(tokens)))], tokenizer)
    assert whole.content.startswith(cut.content.rstrip("\ufffd"))
    assert whole.reasoning.startswith(cut.reasoning.rstrip("\ufffd"))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.integers(199_990, 200_030), st.integers(-5, 201_100), st.integers())))
def test_any_integers_are_accepted(tokenizer, tokens):
    parser = HarmonyParser(tokenizer)
    deltas = [delta for token_id in tokens for delta in parser.feed(token_id)] + parser.finish()
    limit = sum(len(tokenizer.token_bytes(i)) for i in tokens if i not in tokenizer.special_ids)
    assert sum(len(delta.text) for delta in deltas) <= limit
    assert parser.finish() == []


@settings(max_examples=400, deadline=None)
@given(streams)
def test_no_markup_in_any_text(tokenizer, stream):
    for message in collect(spell(stream, tokenizer), tokenizer):
        for written in (message.content, message.recipient or "", message.content_type or ""):
            assert "<|" not in written and "|>" not in written


@settings(max_examples=400, deadline=None)
@given(streams)
def test_deltas_frame_messages(tokenizer, stream):
    """Each message: one opening delta without text, one closing delta, one header."""
    parser = HarmonyParser(tokenizer)
    deltas = [d for token_id in spell(stream, tokenizer) for d in parser.feed(token_id)]
    deltas += parser.finish()
    by_index = [[d for d in deltas if d.index == i] for i in {d.index for d in deltas}]
    assert [d for group in by_index for d in group] == deltas
    for group in by_index:
        assert group[0].text == "" and not group[0].end
        assert [d.end for d in group] == [False] * (len(group) - 1) + [True]
        assert len({(d.channel, d.recipient, d.content_type) for d in group}) == 1


WELL_OPENED = ["analysis", "final", "commentary", "commentary to=functions.f"]
blocks = st.lists(
    st.tuples(
        st.lists(pieces.filter(lambda piece: not piece.startswith("<|m")), max_size=5).map("".join),
        st.sampled_from(WELL_OPENED),
    ),
    max_size=6,
)


def numbered(blocks):
    """Messages with proper headers and numbered text, with anything at all between them."""
    stream = ""
    for number, (noise, header) in enumerate(blocks):
        stream += f"<|start|>assistant<|channel|>{header}<|message|>[{number}]{noise}"
    return stream


@settings(max_examples=400, deadline=None)
@given(blocks)
def test_every_number_comes_out_once_and_where_it_belongs(tokenizer, blocks):
    stops = ("<|call|>", "<|return|>", "<|endoftext|>")
    stopped = [any(stop in noise for stop in stops) for noise, _ in blocks]
    read = blocks[: stopped.index(True) + 1] if True in stopped else blocks
    reply = parse_reply(spell(numbered(blocks), tokenizer), tokenizer)
    called = "".join(call.arguments for call in reply.tool_calls)
    homes = {"analysis": reply.reasoning, "commentary to=functions.f": called}
    for number, (_, header) in enumerate(blocks):
        mark, home = f"[{number}]", homes.get(header, reply.content)
        expected = int(number < len(read))
        assert home.count(mark) == expected
        assert (reply.content + reply.reasoning + called).count(mark) == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=30))
def test_bytes_become_whole_characters(tokenizer, raw):
    """Text as single-byte tokens, some of them no UTF-8."""
    byte_ids = {tokenizer.token_bytes(i): i for i in range(256)}
    parser = HarmonyParser(tokenizer)
    head = spell("<|channel|>final<|message|>", tokenizer)
    body = [byte_ids[bytes([byte])] for byte in raw]
    deltas = [d for token_id in [*head, *body] for d in parser.feed(token_id)] + parser.finish()
    assert "".join(d.text for d in deltas) == raw.decode(errors="replace")


def test_emoji_over_several_tokens_comes_in_one_delta(tokenizer):
    parser = HarmonyParser(tokenizer)
    ids = spell("<|channel|>final<|message|>🫠", tokenizer)
    texts = [d.text for token_id in ids for d in parser.feed(token_id)]
    assert len(ids) > 4
    assert texts == ["", "🫠"]


@settings(max_examples=200, deadline=None)
@given(streams)
def test_streamed_pieces_join_to_the_reply(tokenizer, stream):
    parser, reply = HarmonyParser(tokenizer), Reply()
    sent = {"content": "", "reasoning": "", "tool_call": ""}
    tokens = spell(stream, tokenizer)
    for delta in [d for token_id in tokens for d in parser.feed(token_id)] + parser.finish():
        sent[delta.kind] += reply.add(delta)
    whole = parse_reply(tokens, tokenizer)
    assert (sent["content"], sent["reasoning"]) == (whole.content, whole.reasoning)
    assert sent["tool_call"] == "".join(call.arguments for call in whole.tool_calls)


def test_reply_separates_messages_and_names_tools(tokenizer):
    stream = (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b"
        "<|end|><|start|>assistant<|channel|>analysis<|message|>c<|end|>"
        '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"x":<|call|>'
    )
    reply = parse_reply(spell(stream, tokenizer), tokenizer)
    assert (reply.content, reply.reasoning) == ("b", "a\n\nc")
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("f", '{"x":')]
