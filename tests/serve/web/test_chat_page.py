"""The chat page in a browser."""

import json

import pytest

from ..api.conftest import wait_until
from ..api.spoken import TOKENIZER, call, message, news, says, thought_and_said
from .browser import ESCAPE
from .chatting import FINISHED, ask, chat, prompt_of
from .conftest import site

MARKDOWN = """# A title
Some **bold `x<y`** and *slanted* words, 2 * 3 * 4, snake_case_name and a \\*star\\*.

1. first
   - inner
2. second

   ```python
   if a < b:
       print("**no**")
   ```

| a | b |
|---|--:|
| 1 | `2` |

> said

[here](https://example.org/a) [bad](javascript:alert(1))
---
```
open"""
HOSTILE = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>

**<b onclick="x">y</b>** `<i>z</i>` [l](javascript:document.title='owned')

```html"><img src=x>
<script>document.title='owned'</script>
```
"""


def test_a_real_answer(browser, running):  # noqa: F811
    chat(browser, running.url)
    assert browser.text("#model") == "haast-tiny" and browser.is_shown("#welcome")
    browser.click("#welcome button")
    browser.wait(FINISHED)
    assert browser.texts(".user .text") == ["What is a bald eagle?"]
    assert "eagle" in browser.text(".assistant .text") and not browser.is_shown("#welcome")
    assert browser.text("summary").startswith("Thought for ")
    assert not browser.run("return document.querySelector('details').open")
    browser.click("summary")
    assert browser.is_shown(".thought") and len(browser.text(".thought")) > 5
    assert "tokens" in browser.text(".assistant .foot span")
    origins = "return performance.getEntriesByType('resource').map(e => new URL(e.name).origin)"
    assert set(browser.run(origins)) == {running.url}


def test_markdown(browser):
    with site(says(thought_and_said("Hm.", MARKDOWN))) as (url, _):
        chat(browser, url)
        ask(browser)
        inside = ".assistant .text "
        assert browser.texts(inside + "h1") == ["A title"]
        assert browser.texts(inside + "strong") == ["bold x<y"]
        assert browser.texts(inside + "em") == ["slanted"]
        assert "2 * 3 * 4, snake_case_name and a *star*." in browser.texts(inside + "p")[0]
        assert browser.texts(inside + "ol > li > ul > li") == ["inner"]
        assert browser.run(f"return document.querySelectorAll('{inside}ol > li').length") == 2
        codes = browser.run(
            f"return [...document.querySelectorAll('{inside}pre')].map(e => e.textContent)"
        )
        assert codes == ['if a < b:\n    print("**no**")', "open"]
        assert browser.texts(inside + "li .code > div > span") == ["python"]
        assert browser.texts(inside + "th") == ["a", "b"]
        assert browser.texts(inside + "td code") == ["2"]
        assert browser.texts(inside + "blockquote") == ["said"]
        links = f"return [...document.querySelectorAll('{inside}a')].map(e => [e.href, e.rel])"
        assert browser.run(links) == [["https://example.org/a", "noopener noreferrer"]]
        assert browser.run(f"return document.querySelectorAll('{inside}hr').length") == 1


@pytest.mark.parametrize("at_once", [1, 1000])
def test_nothing_that_a_model_writes_becomes_markup(browser, at_once):
    script = says(thought_and_said(HOSTILE, HOSTILE), at_once=at_once)
    with site(script) as (url, _):
        chat(browser, url)
        ask(browser, "<img src=x onerror=\"document.title='owned'\">")
        assert browser.run("return document.title") == "haast"
        tags = "return document.querySelectorAll('#log img, #log script, #log b, #log i, #log a')"
        assert browser.run(f"{tags}.length") == 0
        said = browser.run("return document.querySelector('.assistant .text').textContent")
        for part in ("<img src=x onerror=", "<b onclick=", "<i>z</i>", "<script>document.title"):
            assert part in said
        assert browser.text(".user .text").startswith("<img src=x")
        browser.open(url)  # from what was kept, too
        browser.wait("document.querySelector('.assistant .text p')")
        assert (
            browser.run("return document.title") == "haast" and browser.run(f"{tags}.length") == 0
        )


def test_stop(browser):
    def script(prompt, params):
        first = news(message("final", "One two"), params, end=None)
        return [*first, 60.0, *news(message("final", "never"), params)]

    with site(script) as (url, engine):
        chat(browser, url)
        ask(browser, is_waiting=False)
        browser.wait("document.querySelector('.assistant .text').innerText == 'One two'")
        assert engine.num_open == 1
        browser.press(ESCAPE)
        browser.wait(FINISHED)
        assert browser.text(".note") == "Stopped." and browser.text(".assistant .text") == "One two"
        wait_until(lambda: engine.num_cancelled)
        assert (engine.num_cancelled, engine.num_open) == (1, 0)
        ask(browser, "again", is_waiting=False)
        browser.wait("document.querySelector('#send.busy')")
        browser.click("#send")
        browser.wait(FINISHED)
        assert browser.texts(".note") == ["Stopped.", "Stopped."]


def test_a_tool_call_and_its_result(browser):
    tools = [{"type": "function", "function": {"name": "lookup", "parameters": {}}}]

    def script(prompt, params):
        said = TOKENIZER.decode(prompt)
        ids = thought_and_said("Hm.", "It is 42.") if "forty-two" in said else call('{"word": "x"}')
        return news(ids, params)

    with site(script) as (url, engine):
        chat(browser, url)
        browser.click("#open-settings")
        browser.type("#tools", "{")
        assert "not valid JSON" in browser.text("#tools-wrong")
        browser.click("#close-settings")
        assert browser.is_shown("#settings")
        browser.run("document.querySelector('#tools').value = ''")
        browser.type("#tools", json.dumps(tools))
        browser.click("#close-settings")
        assert not browser.is_shown("#settings")
        ask(browser, "What is x?")
        assert browser.text(".call strong") == "lookup"
        assert browser.text(".call pre") == '{\n  "word": "x"\n}'
        assert "type lookup" in prompt_of(engine.asked[0])
        browser.type(".call textarea", "forty-two")
        browser.click(".assistant .firm")
        browser.wait("document.querySelectorAll('.assistant').length == 2")
        browser.wait(FINISHED)
        assert browser.texts(".assistant .text")[1] == "It is 42."
        assert browser.text(".tool .text") == "forty-two"
        assert "functions.lookup to=assistant" in prompt_of(engine.asked[1])
