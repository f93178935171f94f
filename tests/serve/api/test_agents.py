"""Tool loops over several turns: the openai package by hand, and OpenAI's agents SDK."""

import asyncio
import json

import agents
import openai
import pytest

from ...lookup import TOOL
from .test_openai_client import GREEDY

MEANINGS = {
    "wombat": "small bear of North America that has dark fur",
    "piano": "large wooden box that has strings",
}


TOLD = ["bear of North America that has dark fur.", "wooden box that has strings."]
"""What haast-tiny repeats of them, all but the first word"""


def lookup(word: str) -> str:
    return json.dumps({"definition": MEANINGS[word]})


def check(asked: list[str], answers: list[str]) -> None:
    assert asked == list(MEANINGS), "each word is looked up once"
    for word, answer, told in zip(MEANINGS, answers, TOLD, strict=True):
        assert answer.startswith(f"A {word} is ") and answer.endswith(told), answer


@pytest.fixture
def clients(running):
    """What an SDK needs: a client made and closed in the loop that it is used in."""
    agents.set_tracing_disabled(True)
    return lambda: openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


def test_two_questions_in_one_chat(running):
    url = f"{running.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        chat, answers, asked = [], [], []
        for word in MEANINGS:
            chat.append({"role": "user", "content": f"What is a {word}?"})
            while True:
                made = client.chat.completions.create(messages=chat, tools=[TOOL], **GREEDY)
                (choice,) = made.choices
                chat.append(choice.message.model_dump(exclude_none=True))
                if choice.finish_reason != "tool_calls":
                    break
                for call in choice.message.tool_calls:
                    asked.append(json.loads(call.function.arguments)["word"])
                    result = lookup(asked[-1])
                    chat.append({"role": "tool", "tool_call_id": call.id, "content": result})
            answers.append(choice.message.content)
    check(asked, answers)


MODELS = [agents.OpenAIChatCompletionsModel, agents.OpenAIResponsesModel]


@pytest.mark.parametrize("model", MODELS, ids=["chat", "responses"])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_the_agents_sdk(clients, model, is_streamed):
    asked = []

    @agents.function_tool(name_override="lookup")
    def look_up(word: str) -> str:
        """Look a word up in a dictionary."""
        asked.append(word)
        return lookup(word)

    async def talk():
        async with clients() as client:
            agent = agents.Agent(
                name="dictionary",
                model=model("haast-tiny", client),
                model_settings=agents.ModelSettings(temperature=0, max_tokens=80),
                tools=[look_up],
            )
            said, history = [], []
            for word in MEANINGS:
                history.append({"role": "user", "content": f"What is a {word}?"})
                if is_streamed:
                    result = agents.Runner.run_streamed(agent, history, max_turns=4)
                    async for _event in result.stream_events():
                        pass
                else:
                    result = await agents.Runner.run(agent, history, max_turns=4)
                said.append(result.final_output)
                history = result.to_input_list()
            return said

    said = asyncio.run(asyncio.wait_for(talk(), 60))
    check(asked, said)
