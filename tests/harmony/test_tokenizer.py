"""Ids and bytes of the real vocabulary, and one-line errors for files that are not one."""

import json
import lzma
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.harmony import Tokenizer, TokenizerError

from .conftest import TOKENIZER_PATH
from .strategies import texts

BLANKS = ["", " ", "\n", "\t ", "a", "🙂"]


def test_markers_have_their_published_ids(tokenizer):
    assert asdict(tokenizer.special) == {
        "start": 200006,
        "end": 200007,
        "message": 200008,
        "channel": 200005,
        "constrain": 200003,
        "call": 200012,
        "return_": 200002,
        "endoftext": 199999,
    }
    assert tokenizer.stop_ids == {200002, 200012, 199999}
    assert tokenizer.vocab_size == 200019
    assert len(tokenizer.special_ids) == 21


def test_no_special_token_can_be_spelled(tokenizer):
    for marker in tokenizer.special_text.values():
        for before in BLANKS:
            for after in BLANKS:
                text = before + marker + after
                ids = tokenizer.encode(text)
                assert tokenizer.special_ids.isdisjoint(ids), text
                assert tokenizer.decode(ids) == text


@settings(max_examples=300, deadline=None)
@given(texts)
def test_encodes_as_openai_harmony_does(tokenizer, encoding, text):
    ids = tokenizer.encode(text)
    assert ids == encoding.encode(text, disallowed_special=())
    assert tokenizer.decode(ids) == text


def test_bytes_of_every_kind_of_id(tokenizer):
    smile = tokenizer.encode("🫠")
    assert len(smile) > 1
    assert b"".join(map(tokenizer.token_bytes, smile)) == "🫠".encode()
    assert tokenizer.decode(smile[:1]) == "\ufffd"
    assert tokenizer.token_bytes(tokenizer.special.start) == b"<|start|>"
    assert {bytes([i]) for i in range(256)} == {tokenizer.token_bytes(i) for i in range(256)}
    for unknown in (-1, tokenizer.vocab_size, 201087, 2**31, 2**64, -(2**70)):
        assert tokenizer.token_bytes(unknown) == b""


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 199997))
def test_bytes_equal_openai_harmonys(tokenizer, encoding, token_id):
    assert tokenizer.token_bytes(token_id) == bytes(encoding._inner.decode_bytes([token_id]))


def test_lone_surrogate_becomes_the_replacement_character(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud83db")) == "a\ufffdb"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude42")) == "🙂"


@pytest.fixture(scope="module")
def tiny():
    """The smallest harmony vocabulary, as the value of a tokenizer.json."""
    names = ["start", "end", "message", "channel", "constrain", "call", "return", "endoftext"]
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    added = [
        {"id": 4 + index, "content": f"<|{name}|>", "special": True} | flags
        for index, name in enumerate(names)
    ]
    pre = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocab = {"a": 0, "Ġ": 1, "<": 2, "|": 3}
    model = {"type": "BPE", "vocab": vocab, "merges": [], "ignore_merges": True}
    return {"version": "1.0", "added_tokens": added, "pre_tokenizer": pre, "model": model}


def save(path, value):
    path.write_text(json.dumps(value))
    return path


def test_another_vocabulary_has_other_ids(tiny, tmp_path):
    tokenizer = Tokenizer(save(tmp_path / "tokenizer.json", tiny))
    assert tokenizer.special.start == 4
    assert tokenizer.stop_ids == {9, 10, 11}
    assert tokenizer.vocab_size == 12
    assert tokenizer.encode("a <|end|>") == [0, 1, 2, 3, 3]


def test_settings_of_the_file_cannot_cut_a_prompt(tiny, tmp_path):
    cut = {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    path = save(tmp_path / "tokenizer.json", tiny | {"truncation": cut})
    assert Tokenizer(path).encode("aaa") == [0, 0, 0]


def refusal(path) -> str:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_marker_is_named(tiny, tmp_path):
    fewer = tiny | {"added_tokens": tiny["added_tokens"][:-2]}
    assert "<|return|>" in refusal(save(tmp_path / "tokenizer.json", fewer))


def test_marker_that_text_can_spell_is_refused(tiny, tmp_path):
    open_marker = [token | {"special": False} for token in tiny["added_tokens"]]
    path = save(tmp_path / "tokenizer.json", tiny | {"added_tokens": open_marker})
    assert "must mark <|start|> as special" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b'{"version": "1.0"}'),
        ("tokenizer.json", b"\xff\xfe\x00"),
        ("tokenizer.json", b""),
        ("tokenizer.json.xz", b"not xz"),
        ("tokenizer.json.xz", lzma.compress(b"[]")),
    ],
)
def test_broken_file_is_one_line_naming_it(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert "cannot read tokenizer" in refusal(path)


def test_truncated_archive_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json.xz"
    path.write_bytes(TOKENIZER_PATH.read_bytes()[:5000])
    refusal(path)


def test_missing_file_and_folder(tmp_path):
    assert refusal(tmp_path / "tokenizer.json").startswith("no tokenizer file")
    assert "Is a directory" in refusal(tmp_path)
