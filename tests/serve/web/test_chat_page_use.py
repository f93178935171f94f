"""The chat page in use: what is kept and set, what goes wrong, keys and sizes."""

import pytest

from haast.engine.request import QueueFullError

from ..api.spoken import message, says, thought_and_said
from .browser import ENTER, ESCAPE, RELEASED, SHIFT, TAB
from .chatting import FINISHED, ask, chat, prompt_of
from .conftest import site

CONTRAST = """
const light = colour => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let node = document.querySelector(arguments[0]);
const ink = light(getComputedStyle(node).color);
const isClear = n => getComputedStyle(n).backgroundColor == 'rgba(0, 0, 0, 0)';
while (isClear(node) && node.parentElement) node = node.parentElement;
const paper = light(getComputedStyle(node).backgroundColor);
return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
"""


def test_settings_reach_the_model(browser):
    with site(says(message("final", "Yes."))) as (url, engine):
        chat(browser, url)
        browser.click("#efforts input[value=high]")
        browser.click("#open-settings")
        browser.type("#temperature", "0.3")
        browser.type("#instructions", "Be terse.")
        browser.press(ESCAPE)
        ask(browser)
        prompt = prompt_of(engine.asked[0])
        assert "Reasoning: high" in prompt and "Be terse." in prompt
        assert engine.asked[0].params.temperature == 0.3
        browser.open(url)
        ask(browser, "More")
        assert engine.asked[1].params.temperature == 0.3
        assert "Reasoning: high" in prompt_of(engine.asked[1])


def test_a_conversation_is_kept_until_a_new_one(browser):
    with site(says(thought_and_said("Hm.", "I am here."))) as (url, engine):
        chat(browser, url)
        # a new line, not the end
        browser.type("#prompt", f"Where{SHIFT}{ENTER}{RELEASED}are you?")
        browser.press(ENTER)
        browser.wait(FINISHED)
        chat(browser, url)
        assert browser.texts(".user .text") == ["Where\nare you?"]
        assert browser.texts(".assistant .text") == ["I am here."]
        ask(browser, "Still?")
        second = prompt_of(engine.asked[1])
        assert "Where\nare you?" in second and "I am here." in second and "Hm." not in second
        browser.click(".assistant:last-child .foot button:nth-child(2)")
        browser.wait("!document.querySelector('#send.busy')")
        assert engine.asked[2].prompt_ids == engine.asked[1].prompt_ids
        browser.click("#new")
        assert browser.texts("article") == [] and browser.is_shown("#welcome")
        chat(browser, url)
        assert browser.texts("article") == []


def test_errors_in_words(browser):
    script = lambda prompt, params: [QueueFullError("16 requests wait")]  # noqa: E731
    with site(script) as (url, engine):
        chat(browser, url)
        ask(browser)
        assert browser.text(".wrong") == (
            "The server has too much to do just now. Try again in a moment."
        )
        engine.down_because = "it was killed by SIGKILL"
        browser.click(".assistant .foot button:nth-child(2)")
        browser.wait("document.querySelector('.wrong').innerText.includes('SIGKILL')")
        assert browser.text(".wrong").startswith("The server cannot answer just now: ")
    ask(browser, "Are you there?")
    assert browser.texts(".wrong")[-1].startswith("The server cannot be reached")
    assert len(browser.log()) == 3  # the browser's own words of 429, 503 and no connection


def test_a_key_is_asked_for(browser):
    with site(says(message("final", "Yes.")), api_keys=("secret",)) as (url, _):
        chat(browser, url)
        assert browser.text("#model") == "locked" and browser.is_shown("#key-form")
        ask(browser)
        assert browser.text(".wrong") == ("The server wants an API key, or does not know this one.")
        browser.type("#key", "wrong" + ENTER)
        browser.wait("document.querySelector('#model').textContent == 'locked'")
        browser.run("document.querySelector('#key').value = ''")
        browser.type("#key", "secret" + ENTER)
        browser.wait("document.querySelector('.assistant .text').innerText == 'Yes.'")
        assert browser.text("#model") == "tiny" and not browser.is_shown("#key-form")
        assert "secret" not in browser.run("return JSON.stringify(localStorage)")
        browser.log()  # of the three 401


def test_by_keyboard_alone_and_copy(browser):
    with site(says(thought_and_said("Hm.", "I am **here**."))) as (url, _):
        chat(browser, url)
        browser.press("Hi" + ENTER)  # the box has the focus at once
        browser.wait(FINISHED)
        stub = "navigator.clipboard.writeText = async text => { window.copied = text; }"
        browser.run(stub)
        seen = []
        for _ in range(12):
            browser.press(TAB)
            seen.append(browser.run("return document.activeElement.innerText || ''"))
            if seen[-1] == "Copy" and "Settings" in seen:
                browser.press(ENTER)
        browser.wait("window.copied == 'I am **here**.' || window.copied == 'Hi'")
        assert {"Settings", "New chat", "Copy", "Try again"} <= set(seen), seen


@pytest.mark.parametrize("width", [360, 1000])
@pytest.mark.parametrize("is_dark", [False, True])
def test_it_fits_and_can_be_read(browser, width, is_dark):
    """Nothing sticks out sideways, also not wide code; text has contrast enough."""
    wide = "```\n" + "x" * 300 + "\n```\n" + "y" * 300
    with site(says(thought_and_said("z" * 300, wide))) as (url, _):
        browser.resize(width, 700, is_dark)
        chat(browser, url)
        ask(browser, "w" * 300)
        assert browser.run("return document.documentElement.scrollWidth") == width
        log = "document.querySelector('#scroller')"
        assert browser.run(f"return {log}.scrollWidth <= {log}.clientWidth")
        for selector in (".assistant .text", "#model", "summary", ".foot span", "#send svg"):
            assert browser.run(CONTRAST, selector) >= 4.5, (selector, is_dark)
