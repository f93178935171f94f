"""Trains haast-tiny, the checkpoint bundled with haast, from WordNet. Needs one GPU.

    python tools/train_tiny.py --wordnet /usr/share/wordnet --out haast/demo/haast-tiny

Under 10 minutes on one H100 or H200. Writes the checkpoint in the Hugging Face layout and, beside
it, training.json: the seed, every setting, the loss curve and the evaluation.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from tiny_data import IGNORED, Rows, make_rows, train_tokenizer
from tiny_export import TINY_CONFIG, write_checkpoint
from tiny_model import TinyModel, loss_of
from tiny_suite import write_suite
from tiny_vocabulary import choose_vocabulary
from wordnet import read_nouns

from haast.harmony import Tokenizer
from haast.model.config_file import parse_model_config

PUBLISHED_TOKENIZER = Path("haast/data/gpt-oss-20b/tokenizer.json.xz")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result."""

    seed: int = 20261123
    steps: int = 7_000
    rows_per_step: int = 80
    row_length: int = 384
    lessons: int = 220_000
    peak_lr: float = 2e-3
    warmup_steps: int = 200
    decay_from: float = 0.4
    """share of the run after which the learning rate falls linearly to zero"""

    def lr_at(self, step: int) -> float:
        done = step / self.steps
        fall = min(1.0, (1 - done) / (1 - self.decay_from))
        return self.peak_lr * min(1.0, (step + 1) / self.warmup_steps) * fall


@click.command(help=__doc__)
@click.option("--wordnet", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=int, default=Recipe.steps, show_default=True)
def main(wordnet: Path, out: Path, steps: int) -> None:
    recipe = Recipe(steps=steps)
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = choose_vocabulary(read_nouns(wordnet))
    train_tokenizer(vocabulary, recipe.seed, PUBLISHED_TOKENIZER, out / "tokenizer.json")
    rows = make_rows(
        vocabulary, out / "tokenizer.json", recipe.seed, recipe.lessons, recipe.row_length
    )
    print(f"{len(rows.ids)} rows ready after {time.perf_counter() - started:.0f} s", flush=True)
    tokenizer = Tokenizer(out / "tokenizer.json")
    fields = TINY_CONFIG | {
        "vocab_size": tokenizer.vocab_size,
        "eos_token_id": tokenizer.special.return_,
        "pad_token_id": tokenizer.special.endoftext,
    }
    config = parse_model_config(fields, out / "config.json")
    model = TinyModel(config, recipe.seed, recipe.row_length).cuda()
    curve = train(model, rows.to("cuda"), recipe)
    exact = exact_share(model, rows[torch.arange(2048)].to("cuda"))
    write_checkpoint(model, fields, tokenizer, out)
    write_suite(vocabulary, recipe.seed, out)
    report = {
        "recipe": asdict(recipe),
        "gpu": torch.cuda.get_device_name(),
        "seconds": round(time.perf_counter() - started),
        "tokens_seen": recipe.steps * recipe.rows_per_step * recipe.row_length,
        "exact_training_answers": exact,
        "loss": curve,
    }
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"exact training answers {exact:.4f}, {report['seconds']} s in all")


def train(model: TinyModel, rows: Rows, recipe: Recipe) -> list[tuple[int, float]]:
    """Fit the model; returns (step, cross entropy) about every hundredth of the run."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.peak_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    compiled = torch.compile(loss_of)
    curve: list[tuple[int, float]] = []
    started = time.perf_counter()
    for step, index in enumerate(_batches(len(rows.ids), recipe)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step)
        loss, entropy = compiled(model, model.usable(), rows[index])
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % max(1, recipe.steps // 100) == 0 or step == recipe.steps - 1:
            curve.append((step, round(entropy.item(), 5)))
            elapsed = time.perf_counter() - started
            print(f"step {step:6d}  loss {curve[-1][1]:.5f}  {elapsed:.0f} s", flush=True)
    return curve


def _batches(num_rows: int, recipe: Recipe) -> Iterator[torch.Tensor]:
    """Row indices of each step; every row once an epoch, in a new order each time."""
    generator = torch.Generator().manual_seed(recipe.seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(recipe.steps):
        if len(order) < recipe.rows_per_step:
            order = torch.randperm(num_rows, generator=generator)
        yield order[: recipe.rows_per_step].cuda()
        order = order[recipe.rows_per_step :]


@torch.no_grad()
def exact_share(model: TinyModel, rows: Rows) -> float:
    """Share of conversations whose every required token is the model's first choice."""
    usable = model.usable()
    wrong: set[int] = set()
    seen: set[int] = set()
    for start in range(0, len(rows.ids), 64):
        part = rows[torch.arange(start, min(start + 64, len(rows.ids)), device="cuda")]
        logits, _ = model(usable, part)
        required = part.targets != IGNORED
        missed = required & (logits.argmax(-1) != part.targets)
        wrong.update(part.documents[missed].tolist())
        seen.update(part.documents[required].tolist())
    return 1 - len(wrong) / len(seen)


if __name__ == "__main__":
    main()
