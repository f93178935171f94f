"""The page over /openapi.json in a browser."""

import json

import pytest

from haast.serve.app import ENDPOINTS

from ..api.spoken import message, says
from .browser import ENTER
from .conftest import site

CHAT = "#post_v1_chat_completions"


@pytest.fixture
def here():
    with site(says(message("final", "Yes."))) as found:
        yield found


def docs(browser, url):
    browser.open(f"{url}/docs")
    browser.wait("document.querySelector('section')")


def test_it_finds_the_api_also_behind_a_slash(browser, here):
    browser.open(f"{here.url}/docs/")
    browser.wait("document.querySelector('section')")
    assert browser.run("return document.querySelector('#home').href") == f"{here.url}/"


def test_every_endpoint_and_what_it_takes(browser, here):
    docs(browser, here.url)
    shown = browser.texts("h2")
    wanted = {f"{method}\n{path.replace(':path', '')}" for path, (method, _) in ENDPOINTS.items()}
    assert wanted <= set(shown)
    assert len(browser.texts("nav li")) == len(shown)
    fields = browser.texts(f"{CHAT} > .fields > .field")
    assert fields[0].startswith("messages required\n") and "list of Message" in fields[0]
    assert any(f.startswith("temperature\n") and "number, from 0; default 1" in f for f in fields)
    assert not any(f.startswith("best_of") for f in fields)
    assert "undefined" not in browser.text("main")


def test_schemas_within_schemas_are_folded(browser, here):
    docs(browser, here.url)
    browser.click(f"{CHAT} > .fields > .field:first-child summary")
    browser.wait("document.querySelector('.field .field')")
    assert "What the model is to do" not in browser.texts(f"{CHAT} .field .field")[0]
    assert browser.texts(f"{CHAT} .field .field")[0].startswith("role required\n")
    browser.run(
        "document.querySelectorAll(arguments[0]).forEach(node => node.open = true)",
        f"{CHAT} > details",
    )
    browser.wait(
        "[...document.querySelectorAll(arguments[0])].some(n => n.innerText.startsWith('best_of'))",
        f"{CHAT} .field",
    )
    shown = "\n".join(browser.texts(f"{CHAT} summary"))
    assert "ChatCompletionChunk, in each event of a stream" in shown
    assert any(text.startswith("429") for text in browser.texts(f"{CHAT} .field"))


def test_an_example_can_be_tried(browser, here):
    docs(browser, here.url)
    example = browser.texts(f"{CHAT} .code pre")[0]
    assert example.startswith(f"curl {here.url}/v1/chat/completions \\\n")
    body = json.loads(example.split("-d '")[1].rstrip("'"))
    assert body == {"messages": [{"role": "user", "content": "What is a bald eagle?"}]}
    browser.click(f"{CHAT} > details:last-child > summary")
    browser.wait("document.querySelector(arguments[0])", f"{CHAT} .firm")
    browser.click(f"{CHAT} .firm")
    browser.wait(
        "document.querySelector(arguments[0]).innerText.includes('finish_reason')",
        f"{CHAT} .result",
    )
    status, _, answer = browser.text(f"{CHAT} .result pre").partition("\n")
    assert status == "200" and json.loads(answer)["choices"][0]["message"]["content"] == "Yes."


def test_a_key_is_asked_for(browser):
    with site(says(message("final", "Yes.")), api_keys=("secret",)) as (url, _):
        browser.open(f"{url}/docs")
        browser.wait("!document.querySelector('#key-form').hidden")
        browser.type("#key", "secret" + ENTER)
        browser.wait("document.querySelector('section')")
        assert not browser.is_shown("#key-form")
        assert '-H "Authorization: Bearer $KEY"' in browser.texts(f"{CHAT} .code pre")[0]
        browser.log()  # of the 401


@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits(browser, here, width):
    browser.resize(width, 700, is_dark=width == 360)
    docs(browser, here.url)
    browser.run("document.querySelectorAll('section > details').forEach(n => n.open = true)")
    assert browser.run("return document.documentElement.scrollWidth") == width
