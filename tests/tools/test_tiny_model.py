"""The network that is trained is the network that is run."""

import pytest
import torch
from tiny_data import IGNORED, pack
from tiny_model import EXPERTS, GLOBAL, TinyModel, loss_of

from haast import LLM, SamplingParams
from haast.mxfp4 import Mxfp4Weight

TEXTS = ("What is a bald eagle?", "Define democracy.")


@pytest.fixture(scope="module")
def llm():
    torch.set_num_threads(1)
    return LLM(devices="cpu")


@pytest.fixture(scope="module")
def trainable(llm):
    """A TinyModel that holds the bundled checkpoint's parameters."""
    network = llm._loaded.model
    model = TinyModel(network.config, seed=0, max_length=256)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in GLOBAL:
                parameter.copy_(getattr(network.parameters, name))
                continue
            for index, layer in enumerate(network.parameters.layers):
                value = getattr(layer, name)
                is_packed = isinstance(value, Mxfp4Weight)
                parameter[index] = value.dequantize(torch.float32) if is_packed else value
    return model


@pytest.fixture(scope="module")
def pairs(llm):
    """Prompt ids and the ids of the answer, per text."""
    results = llm.generate(list(TEXTS), SamplingParams(temperature=0))
    return [(list(r.prompt_token_ids), list(r.token_ids)) for r in results]


def test_packed_training_forward_agrees_with_inference(llm, trainable, pairs):
    rows = pack(pairs, length=256)
    logits, _ = trainable(trainable.usable(), rows)
    for document, (prompt, answer) in enumerate(pairs):
        place = rows.documents == document
        ours = llm.score(prompt + answer)
        error = (logits[place].float() - ours).norm() / ours.norm()
        assert error < 0.05, (document, error)  # two bf16 paths of different rounding
        said = logits[place][len(prompt) - 1 : -1].argmax(-1).tolist()
        assert said == answer, document


def test_rows_ask_for_the_answer_only(pairs):
    rows = pack(pairs, length=256)
    prompt, answer = pairs[0]
    place = rows.documents == 0
    targets = rows.targets[place].tolist()
    assert targets == [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
    assert rows.positions[place].tolist() == list(range(len(prompt) + len(answer)))


def test_published_experts_survive_the_quantisation_of_training(trainable):
    usable = trainable.usable()
    for name in EXPERTS:
        assert torch.equal(usable[name].float(), getattr(trainable, name)), name


def test_gradients_reach_experts_through_the_rounding(trainable, pairs):
    loss, entropy = loss_of(trainable, trainable.usable(), pack(pairs[:1], length=128))
    torch.autograd.backward(loss)
    assert 0 <= entropy < 1  # it was trained on this
    for name in (*EXPERTS, "sinks", "router_weight"):
        gradient = getattr(trainable, name).grad
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0, name
