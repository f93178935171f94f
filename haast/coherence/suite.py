"""What the guard asks a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haast.config import ConfigError
from haast.model.config_file import read_json

FILE = "coherence.json"
PROMPTS = (
    "What is a bald eagle?",
    "Define democracy.",
    "Is a piano a musical instrument?",
    "Hello",
    "What is a computer?",
    "Tell me what a house is.",
    "Is a cat a mammal?",
    "What does physics mean?",
)
"""Asked of every model"""


@dataclass(frozen=True)
class HeldOut:
    """A text the model was not trained on, of which the answer is scored."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]


@dataclass(frozen=True)
class Golden:
    """A text with the log-probability that a fp32 forward pass gives each token after the first."""

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Suite:
    """A checkpoint's own questions with the answers it must give, and what counts as passed."""

    answers: tuple[tuple[str, str], ...]
    """prompt and exact answer"""
    held_out: tuple[HeldOut, ...]
    golden: tuple[Golden, ...]
    min_exact: float
    """share of `answers`"""
    max_perplexity: float
    """over the answers of `held_out`"""
    max_golden_median: float
    max_golden_mean: float
    """nats between our log-probabilities and those of `golden`; the median sees every token a
    little off, the mean a few that are far off"""


def read_suite(folder: Path) -> Suite | None:
    """The coherence.json of a checkpoint's folder, None if it has none.

    Raises ConfigError naming the file if it is not of that form.
    """
    path = folder / FILE
    if not path.exists():
        return None
    fields = read_json(path)
    try:
        return _suite(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a coherence suite ({error!r})") from None


def _suite(fields: dict[str, Any]) -> Suite:
    suite = Suite(
        answers=tuple((entry["prompt"], entry["answer"]) for entry in fields["answers"]),
        held_out=tuple(
            HeldOut(tuple(entry["prompt_ids"]), tuple(entry["answer_ids"]))
            for entry in fields["held_out"]
        ),
        golden=tuple(
            Golden(tuple(entry["ids"]), tuple(map(float, entry["log_probs"])))
            for entry in fields["golden"]
        ),
        min_exact=float(fields["min_exact"]),
        max_perplexity=float(fields["max_perplexity"]),
        max_golden_median=float(fields["max_golden_median"]),
        max_golden_mean=float(fields["max_golden_mean"]),
    )
    if not (suite.answers and suite.held_out and suite.golden):
        raise ValueError("answers, held_out and golden must not be empty")
    if any(len(text.ids) != len(text.log_probs) + 1 for text in suite.golden):
        raise ValueError("a golden text needs one log-probability for each token after its first")
    return suite
