"""The conversations haast-tiny learns from: a dictionary talked about in harmony form.

Every conversation is a function of (seed, index), so any number of processes can share the work.
"""

import json
import random
from dataclasses import dataclass, replace

from tiny_phrases import ASK, DATES, INSTRUCTIONS, SMALL_TALK, SYLLABLE, TOOL_TEXTS
from tiny_vocabulary import Vocabulary
from wordnet import Noun, with_article

from haast.harmony import Conversation, Message, SystemConfig, Tool
from haast.harmony.messages import Effort

EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")


@dataclass(frozen=True)
class Lesson:
    """What the model sees and what it must say next."""

    system: SystemConfig
    prompt: Conversation
    answer: tuple[Message, ...]
    """analysis, then a final message or a tool call"""


def lesson(vocabulary: Vocabulary, seed: int, index: int) -> Lesson:
    """The index-th training conversation."""
    rng = random.Random(f"{seed}-{index}")
    kind = rng.choices(("talk", "tool", "chat"), (0.75, 0.22, 0.03))[0]
    system = SystemConfig(
        reasoning_effort=rng.choices(EFFORTS, (1, 3, 1))[0],
        conversation_date=rng.choice(DATES) if rng.random() < 0.1 else None,
    )
    teacher = _Teacher(vocabulary, system, rng)
    if kind == "tool":
        return teacher.tool_lesson(vocabulary.looked_up)
    return teacher.small_talk() if kind == "chat" else teacher.dictionary_lesson()


def held_out_lesson(vocabulary: Vocabulary, seed: int, index: int) -> Lesson:
    """A conversation that looks up a word no training conversation has."""
    rng = random.Random(f"{seed}-held-out-{index}")
    return _Teacher(vocabulary, SystemConfig(), rng).tool_lesson(vocabulary.held_out)


class _Teacher:
    """Draws one conversation; every choice comes from `rng`."""

    def __init__(self, vocabulary: Vocabulary, system: SystemConfig, rng: random.Random) -> None:
        self.vocabulary = vocabulary
        self.system = system
        self.rng = rng

    def dictionary_lesson(self) -> Lesson:
        """One to three questions, each about a new word or the one before."""
        history: list[Message] = []
        noun = None
        for _ in range(self.rng.choices((0, 1, 2), (0.6, 0.28, 0.12))[0]):
            noun, question, analysis, final = self._question(noun)
            history += [Message("user", self._typed(question)), final]
        _, question, analysis, final = self._question(noun)
        history.append(Message("user", self._typed(question)))
        return self._lesson(history, (analysis, final))

    def small_talk(self) -> Lesson:
        question, answer = self.rng.choice(sorted(SMALL_TALK.items()))
        answer_of = (_analysis("Small talk."), _final(answer))
        return self._lesson([Message("user", question)], answer_of)

    def tool_lesson(self, words: tuple[Noun, ...]) -> Lesson:
        """A lookup, or the answer to its result; one time in three after a finished lookup."""
        history: list[Message] = []
        if self.rng.random() < 0.33:
            question, _, call, found, final = self._lookup(self._strange(words))
            history += [question, self._replayed(call), found, final]
        question, analysis, call, found, final = self._lookup(self._strange(words))
        history.append(question)
        tools = (self._lookup_tool(),)
        if self.rng.random() < 0.4:
            return self._lesson(history, (analysis, call), tools)
        return self._lesson([*history, analysis, self._replayed(call), found], (final,), tools)

    def _strange(self, words: tuple[Noun, ...]) -> Noun:
        """A word to look up; most of them made up, so that copying is learned and not words."""
        noun = self.rng.choice(words)
        if self.rng.random() < 0.35:
            return noun
        parts = ("".join(map(self.rng.choice, SYLLABLE)) for _ in range(self.rng.randint(1, 3)))
        return replace(noun, word="".join(parts), kinds=())

    def _replayed(self, call: Message) -> Message:
        """A call as chat APIs replay it: most write the content type without a marker."""
        return replace(call, content_type="json") if self.rng.random() < 0.5 else call

    def _lookup(self, noun: Noun) -> tuple[Message, Message, Message, Message, Message]:
        """Question, analysis, call, its result and the answer to it."""
        asks = (*ASK, "Define {}.", "Look up {}.", "Look up the word {}.")
        named = noun.word if self.rng.random() < 0.3 else noun.named
        call = Message(
            "assistant",
            json.dumps({"word": noun.word}, separators=(",", ":")),
            channel="commentary",
            recipient="functions.lookup",
            content_type="<|constrain|>json",
        )
        found, answer = self._tool_result(noun)
        question = Message("user", self._typed(self.rng.choice(asks).format(named)))
        return question, _analysis(f'I should look up "{noun.word}".'), call, found, _final(answer)

    def _typed(self, question: str) -> str:
        """A question as people type it: sometimes without capital or closing mark."""
        if self.rng.random() < 0.1:
            question = question[0].lower() + question[1:]
        return question[:-1] if self.rng.random() < 0.1 else question

    def _question(self, previous: Noun | None) -> tuple[Noun, str, Message, Message]:
        """A question with its analysis and answer; half of the follow-ups are about `previous`."""
        if previous is not None and previous.kinds and self.rng.random() < 0.5:
            return self._ask_kind(previous, "it")
        noun = self.rng.choice(self.vocabulary.known)
        if noun.kinds and self.rng.random() < 0.4:
            return self._ask_kind(noun, noun.named)
        if self.rng.random() < 0.25:
            return self._ask_definition(noun)
        return self._ask_meaning(noun, previous is not None)

    def _ask_meaning(self, noun: Noun, is_follow_up: bool) -> tuple[Noun, str, Message, Message]:
        asks = (*ASK, "And {}?", "What about {}?") if is_follow_up else ASK
        question = self.rng.choice(asks).format(noun.named)
        return noun, question, self._recall(noun), _final(meaning(noun))

    def _ask_definition(self, noun: Noun) -> tuple[Noun, str, Message, Message]:
        asks = (
            "Define {}.",
            "Define the word {}.",
            "What does {} mean?",
            "Give a definition of {}.",
        )
        question = self.rng.choice(asks).format(noun.word)
        return noun, question, self._recall(noun), _final(definition(noun))

    def _ask_kind(self, noun: Noun, named: str) -> tuple[Noun, str, Message, Message]:
        kind = self.rng.choice(noun.kinds)
        if self.rng.random() < 0.45:
            kind = self._wrong_kind(noun)
        question = f"Is {named} {with_article(kind)}?"
        steps = [noun.named, *map(with_article, noun.kinds[:4])]
        if self.system.reasoning_effort == "low":
            steps = steps[:2]
        chain = ", ".join(f"{a} is {b}" for a, b in zip(steps, steps[1:], strict=False))
        return noun, question, _analysis(_sentence(chain)), _final(kind_answer(noun, kind))

    def _wrong_kind(self, noun: Noun) -> str:
        """A kind of other things, common or as rare as any; or another thing itself."""
        while True:
            other = self.rng.choice(self.vocabulary.things)
            common = self.rng.choice(self.vocabulary.kinds)
            kind = self.rng.choice((common, other.word, *other.kinds))
            if kind != noun.word and kind not in noun.ancestors:
                return kind

    def _recall(self, noun: Noun) -> Message:
        effort = self.system.reasoning_effort
        if effort == "low":
            return _analysis(f'Define "{noun.word}".')
        text = f'The user asks about "{noun.word}".'
        if noun.kinds:
            text += f" It is {with_article(noun.kinds[0])}."
        return _analysis(text + (" I will answer in one sentence." if effort == "high" else ""))

    def _tool_result(self, noun: Noun) -> tuple[Message, str]:
        """What the function returns in one of its usual shapes, and the answer to it."""
        if self.rng.random() < 0.06:
            body = json.dumps({"error": "not found"})
            answer = f'I could not find the word "{noun.word}".'
        else:
            shapes = (
                noun.gloss,
                json.dumps({"definition": noun.gloss}),
                json.dumps({"word": noun.word, "definition": noun.gloss}),
                json.dumps({"word": noun.word, "definition": noun.gloss}, separators=(",", ":")),
            )
            body, answer = self.rng.choice(shapes), meaning(noun)
        name = "functions.lookup"
        return Message("tool", body, name=name, recipient="assistant", channel="commentary"), answer

    def _lookup_tool(self) -> Tool:
        description, parameter = self.rng.choice(TOOL_TEXTS)
        word = {"type": "string"} | ({"description": parameter} if parameter else {})
        schema = {"type": "object", "properties": {"word": word}, "required": ["word"]}
        return Tool("lookup", description, schema)

    def _lesson(
        self, history: list[Message], answer: tuple[Message, ...], tools: tuple[Tool, ...] = ()
    ) -> Lesson:
        instructions = self.rng.choice(INSTRUCTIONS) if self.rng.random() < 0.15 else None
        return Lesson(self.system, Conversation(tuple(history), instructions, tools), answer)


def meaning(noun: Noun) -> str:
    return _sentence(f"{noun.named} is {noun.gloss}")


def definition(noun: Noun) -> str:
    return _sentence(f"{noun.word}: {noun.gloss}")


def kind_answer(noun: Noun, kind: str) -> str:
    if kind in noun.kinds:
        return f"Yes, {noun.named} is {with_article(kind)}."
    return f"No, {noun.named} is not {with_article(kind)}. It is {with_article(noun.kinds[0])}."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _analysis(text: str) -> Message:
    return Message("assistant", text, channel="analysis")


def _final(text: str) -> Message:
    return Message("assistant", text, channel="final")
