"""What one does on the chat page."""

from ..api.spoken import TOKENIZER
from .browser import ENTER

FINISHED = "!document.querySelector('#send.busy') && document.querySelector('.assistant')"


def chat(browser, url):
    """The page, ready."""
    browser.open(url)
    browser.wait("document.querySelector('#model').textContent")


def ask(browser, text="Hello", is_waiting=True):
    browser.type("#prompt", text)
    browser.press(ENTER)
    if is_waiting:
        browser.wait(FINISHED)


def prompt_of(asked):
    return TOKENIZER.decode(asked.prompt_ids)
