"""What is wrong with grammars, and what is remembered of them."""

import json

import pytest

from haast import grammars as grammars_module
from haast.grammars import choice_piece, json_piece, lark_piece, regex_piece, why_invalid
from haast.harmony.grammar import text_grammar

from .speaker import PATHS, Speaker


def test_compiled_grammars_are_kept_up_to_a_number(monkeypatch):
    monkeypatch.setattr("haast.grammars.MAX_GRAMMARS", 2)
    grammars = Speaker(PATHS["tiny"]).grammars
    texts = [text_grammar(choice_piece([word])) for word in ("a", "b", "c")]
    for text in (*texts[:2], texts[0], texts[2]):
        grammars.compile(text)
    assert [grammars.is_compiled(text) for text in texts] == [True, False, True]
    monkeypatch.setattr("haast.grammars.MAX_CHARACTERS", 1)
    grammars.compile(texts[1])
    assert [grammars.is_compiled(text) for text in texts] == [False, True, False]


def test_long_texts_are_checked_and_not_remembered(monkeypatch):
    monkeypatch.setattr("haast.grammars.MAX_CHECKED", 100)
    before = grammars_module._checked.cache_info().currsize
    assert why_invalid(choice_piece(["a" * 100])) is None
    assert why_invalid(regex_piece("(" * 100)) is not None
    assert grammars_module._checked.cache_info().currsize == before
    assert why_invalid(choice_piece([f"{before}b"])) is None
    assert grammars_module._checked.cache_info().currsize == before + 1


def test_reasons_take_one_line():
    assert why_invalid(regex_piece("(?=a)b")).endswith("look-behind, is not supported")
    assert why_invalid(json_piece({"not": {}}, is_strict=True)) == 'Unimplemented keys: ["not"]'
    assert why_invalid(json_piece({"not": {}}, is_strict=False)) is None
    user = {"x-guidance": {"lenient": True}, "not": {}}
    assert why_invalid(json_piece(user, is_strict=True)) is not None
    for text in ("", 'root ::= "a', "start"):
        with pytest.raises(ValueError) as error:
            lark_piece(text)
        assert str(error.value) and "\n" not in str(error.value)
    assert json.loads(text_grammar(regex_piece("é")))["grammars"] == [regex_piece("é")]
