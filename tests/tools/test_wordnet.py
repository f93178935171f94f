"""WordNet's files -> words, on a database of a few lines."""

import pytest
from tiny_corpus import definition, kind_answer, meaning
from wordnet import read_nouns, with_article

DATA = """\
  1 This software and database is being provided to you, the LICENSEE
00000001 03 n 01 entity 0 000 | that which is perceived to have its own distinct existence
00000002 05 n 02 animal 0 beast 0 001 @ 00000001 n 0000 | a living organism that moves
00000003 05 n 01 bird 0 001 @ 00000002 n 0000 | a warm-blooded animal that has wings; "a bird sang"
00000004 05 n 02 eagle 0 bird_of_jove 0 001 @ 00000003 n 0000 | large (quite so) bird of prey with \
broad wings; "an eagle"
00000005 07 n 01 freedom 0 001 @ 00000001 n 0000 | the condition of being free; the power to act
00000006 15 n 01 Rome 0 001 @ 00000001 n 0000 | a big old city in Italy
00000007 07 n 01 odd 0 001 @ 00000001 n 0000 | too short
"""
INDEX = """\
  1 This software and database is being provided to you, the LICENSEE
bird n 1 1 @ 1 1 00000003
eagle n 1 1 @ 1 0 00000004
freedom n 1 1 @ 1 1 00000005
odd n 1 1 @ 1 1 00000007
rome n 1 1 @ 1 1 00000006
"""
COUNTS = """\
bird%1:05:00:: 1 7
bird%2:35:00:: 1 90
freedom%1:07:00:: 1 30
freedom%1:26:00:: 2 2
"""


@pytest.fixture
def nouns(tmp_path):
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    (tmp_path / "cntlist.rev").write_text(COUNTS)
    return {noun.word: noun for noun in read_nouns(tmp_path)}


def test_words_come_by_frequency_as_a_noun(nouns):
    assert [(n.word, n.frequency) for n in nouns.values()] == [
        ("freedom", 32),
        ("bird", 7),
        ("eagle", 0),
    ]


def test_names_and_short_glosses_are_left_out(nouns):
    assert not {"rome", "odd"} & set(nouns)


def test_a_gloss_is_its_first_definition_with_an_article_where_a_thing_lacks_one(nouns):
    assert nouns["bird"].gloss == "a warm-blooded animal that has wings"
    assert nouns["eagle"].gloss == "a large bird of prey with broad wings"
    assert nouns["freedom"].gloss == "the condition of being free"


def test_kinds_are_physical_and_nearest_first(nouns):
    assert nouns["eagle"].kinds == ("bird", "animal")
    assert nouns["eagle"].ancestors == {"bird", "animal", "beast", "entity"}
    assert nouns["freedom"].kinds == ()


def test_sentences(nouns):
    assert meaning(nouns["eagle"]) == "An eagle is a large bird of prey with broad wings."
    assert meaning(nouns["freedom"]) == "Freedom is the condition of being free."
    assert definition(nouns["bird"]) == "Bird: a warm-blooded animal that has wings."
    assert kind_answer(nouns["eagle"], "animal") == "Yes, an eagle is an animal."
    assert kind_answer(nouns["eagle"], "ship") == "No, an eagle is not a ship. It is a bird."
    assert (with_article("apple"), with_article("pear")) == ("an apple", "a pear")
