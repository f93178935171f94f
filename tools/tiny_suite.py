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
from tiny_corpus import definition, held_out_lesson, kind_answer, meaning
from tiny_data import encode_lesson
from tiny_vocabulary import Vocabulary, choose_vocabulary
from wordnet import Noun, read_nouns, with_article

from haast.coherence.suite import FILE
from haast.harmony import Tokenizer

NUM_ANSWERS, NUM_HELD_OUT = 200, 40
MIN_EXACT, MAX_PERPLEXITY = 0.98, 1.1


def write_suite(vocabulary: Vocabulary, seed: int, checkpoint: Path) -> None:
    """Draw the suite and write it into the checkpoint's folder."""
    rng = random.Random(f"{seed}-suite")
    tokenizer = Tokenizer(checkpoint / "tokenizer.json")
    words = rng.sample(vocabulary.known, NUM_ANSWERS)
    lessons = [held_out_lesson(vocabulary, seed, index) for index in range(NUM_HELD_OUT)]
    held_out = [encode_lesson(drawn, tokenizer) for drawn in lessons]
    suite = {
        "min_exact": MIN_EXACT,
        "max_perplexity": MAX_PERPLEXITY,
        "answers": [_question(word, index, rng) for index, word in enumerate(words)],
        "held_out": [{"prompt_ids": p, "answer_ids": a} for p, a in held_out],
    }
    (checkpoint / FILE).write_text(_json_lines(suite))


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
