"""Draws docs/chat.png, the chat page over a server that runs:

python -m tests.serve.web.screenshot http://localhost:8000
"""

import sys
import tempfile
from pathlib import Path

from .browser import browsing
from .chatting import FINISHED, ask, chat

PICTURE = Path(__file__).parents[3] / "docs/chat.png"
QUESTIONS = ("What is a bald eagle?", "Define democracy.")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browsing(Path(folder)) as browser:
        browser.resize(960, 640)
        chat(browser, sys.argv[1])
        for question in QUESTIONS:
            ask(browser, question)
            browser.wait(FINISHED)
        browser.click("article:last-child summary")
        browser.click("#prompt")
        browser.screenshot(PICTURE)


if __name__ == "__main__":
    main()
