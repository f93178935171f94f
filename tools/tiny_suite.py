"""haast-tiny's own coherence suite: questions with the dictionary's answers, and unseen lookups.

    python tools/tiny_suite.py --wordnet /usr/share/wordnet --checkpoint haast/demo/haast-tiny

The words are drawn by seed, not picked by whether the model knows them. `train_tiny.py` runs this
too.
"""

import json
import random
from pathlib import Path
from typing import Any

import click
import torch
from tiny_corpus import definition, held_out_lesson, kind_answer, lesson, meaning
from tiny_data import encode_lesson
from tiny_vocabulary import Vocabulary, choose_vocabulary
from transformers import GptOssForCausalLM
from transformers.utils.quantization_config import Mxfp4Config
from wordnet import Noun, read_nouns, with_article

from haast.coherence.suite import FILE
from haast.harmony import Tokenizer

NUM_ANSWERS, NUM_HELD_OUT = 200, 40
NUM_GOLDEN = 10
"""Texts of either kind: with a looked-up word, and with words known by heart"""
LIMITS = {
    "min_exact": 0.98,
    "max_perplexity": 1.03,
    "max_golden_median": 0.025,
    "max_golden_mean": 0.1,
}
"""Undamaged in bf16 on a CPU: 1.0, 1.013, 0.014, 0.048. With one scale byte in a thousand off by
one the last two are 0.033 and 0.115 to 0.120, with a window one key too short 0.030 and 0.157."""


def write_suite(vocabulary: Vocabulary, seed: int, checkpoint: Path) -> None:
    """Draw the suite and write it into the checkpoint's folder."""
    rng = random.Random(f"{seed}-suite")
    tokenizer = Tokenizer(checkpoint / "tokenizer.json")
    words = rng.sample(vocabulary.known, NUM_ANSWERS)
    unseen = [held_out_lesson(vocabulary, seed, index) for index in range(NUM_HELD_OUT)]
    seen = [lesson(vocabulary, seed, index) for index in range(10 * NUM_GOLDEN)]
    by_heart = [drawn for drawn in seen if not drawn.prompt.tools][:NUM_GOLDEN]
    held_out = [encode_lesson(drawn, tokenizer) for drawn in unseen]
    texts = [*held_out[:NUM_GOLDEN], *(encode_lesson(drawn, tokenizer) for drawn in by_heart)]
    suite = {
        **LIMITS,
        "golden": _golden(checkpoint, [prompt + answer for prompt, answer in texts]),
        "answers": [_question(word, index, rng) for index, word in enumerate(words)],
        "held_out": [{"prompt_ids": p, "answer_ids": a} for p, a in held_out],
    }
    (checkpoint / FILE).write_text(_json_lines(suite))


@torch.inference_mode()
def _golden(checkpoint: Path, texts: list[list[int]]) -> list[dict[str, Any]]:
    """Log-probabilities by transformers in fp32, which shares no code with haast."""
    model = GptOssForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        attn_implementation="eager",
        quantization_config=Mxfp4Config(dequantize=True),
    )
    golden = []
    for ids in texts:
        rows = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        chosen = rows.gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)
        golden.append({"ids": ids, "log_probs": [round(float(value), 4) for value in chosen]})
    return golden


def _question(noun: Noun, index: int, rng: random.Random) -> dict[str, str]:
    """Meaning, definition and kind in turn; a word without kinds is asked for its meaning."""
    if index % 4 == 1:
        return {"prompt": f"Define {noun.word}.", "answer": definition(noun)}
    if index % 4 == 3 and noun.kinds:
        kind = rng.choice(noun.kinds)
        prompt = f"Is {noun.named} {with_article(kind)}?"
        return {"prompt": prompt, "answer": kind_answer(noun, kind)}
    return {"prompt": f"What is {noun.named}?", "answer": meaning(noun)}


def _json_lines(suite: dict[str, Any]) -> str:
    """JSON with one question or text a line."""
    parts = []
    for name, value in suite.items():
        if isinstance(value, list):
            rows = ",\n  ".join(json.dumps(entry) for entry in value)
            parts.append(f'"{name}": [\n  {rows}\n ]')
        else:
            parts.append(f'"{name}": {json.dumps(value)}')
    return "{\n " + ",\n ".join(parts) + "\n}\n"


@click.command(help=__doc__)
@click.option("--wordnet", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--checkpoint", type=click.Path(path_type=Path, exists=True), required=True)
def main(wordnet: Path, checkpoint: Path) -> None:
    seed = json.loads((checkpoint / "training.json").read_text())["recipe"]["seed"]
    write_suite(choose_vocabulary(read_nouns(wordnet)), seed, checkpoint)


if __name__ == "__main__":
    main()
