"""The bundled checkpoint is what it says it is."""

import json

from haast.coherence.suite import PROMPTS, read_suite
from haast.harmony import TEMPLATE_PATH, Tokenizer
from haast.model.checkpoint import open_checkpoint
from haast.model.locate import demo_folder

CHECKPOINT = open_checkpoint(demo_folder())


def test_it_is_published_like_gpt_oss():
    assert CHECKPOINT.layout.name == "hf-mxfp4"
    assert CHECKPOINT.config.architecture == "GptOssForCausalLM"
    assert CHECKPOINT.nbytes < 20e6


def test_its_sizes_hide_no_swapped_axes():
    config = CHECKPOINT.config
    assert config.hidden_size != config.intermediate_size
    assert config.num_kv_heads != config.num_heads // config.num_kv_heads
    assert config.num_experts != config.num_active_experts
    assert min(window for window in config.windows if window) == 32


def test_its_chat_template_is_ours():
    assert CHECKPOINT.chat_template.read_text() == TEMPLATE_PATH.read_text()


def test_its_vocabulary_has_other_ids_than_the_published_one():
    tokenizer = Tokenizer(CHECKPOINT.tokenizer)
    assert tokenizer.vocab_size == CHECKPOINT.config.vocab_size == 4096
    assert tokenizer.special.return_ == 4089


def test_its_suite_is_complete_and_its_words_are_few_enough_to_check():
    suite = read_suite(demo_folder())
    assert len(suite.answers) == 200
    assert len({prompt for prompt, _ in suite.answers}) == 200
    assert len(suite.held_out) == 40
    assert "What is a bald eagle?" in PROMPTS


def test_its_training_and_evaluation_are_recorded():
    training = json.loads((demo_folder() / "training.json").read_text())
    evaluation = json.loads((demo_folder() / "evaluation.json").read_text())
    losses = [loss for _, loss in training["loss"]]
    assert losses[0] > 8 and losses[-1] < 0.01
    assert [run["passed"] for run in evaluation["runs"]] == [True, True]
    assert all(check["passed"] for run in evaluation["runs"] for check in run["checks"])


def test_the_wordnet_notice_is_kept():
    assert (
        "WordNet 3.0 Copyright 2006 by Princeton University"
        in (demo_folder() / "NOTICE.md").read_text()
    )
