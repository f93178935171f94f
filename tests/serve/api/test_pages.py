"""The pages as the server sends them; tests/serve/web has them in a browser."""

import re
from importlib.resources import files

import pytest

from .conftest import Api

PAGES = {"/": "chat.html", "/docs": "docs.html"}
UNSAFE = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_needs_nothing_but_itself(path):
    response = Api(api_keys=("secret",)).http.get(path)
    assert response.status_code == 200, "the page asks for the key itself"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        part.split(" ", 1) for part in response.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-") and "unsafe" not in str(policy)
    assert response.headers["x-content-type-options"] == "nosniff"
    text = response.text
    assert len(text) < 64_000 and text.count("<script>") == text.count("<style>") == 1
    loaded = re.findall(
        r"""(?:src|href|action)=["']?([^"'\s>]+)|\burl\((["'][^)]*)\)|@import""", text
    )
    assert all(one[0].startswith(("data:", "#")) or one[0] in ("docs", "./") for one in loaded), (
        loaded
    )


@pytest.mark.parametrize("page", PAGES.values())
def test_a_page_makes_nodes_of_text_only(page):
    text = files("haast.serve").joinpath("web", page).read_text()
    assert [word for word in UNSAFE if word in text] == []
    assert not re.search(r"\son\w+=", text), "handlers in markup would need a weaker policy"
