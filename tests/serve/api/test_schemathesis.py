"""Requests made from our own openapi.json, right and wrong ones: no answer is a 5xx."""

import time
from collections import Counter

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, seed, settings
from schemathesis.checks import not_a_server_error

from .conftest import HELLO

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
GENERATES = {"/v1/chat/completions": LIMITS[0], "/v1/completions": LIMITS[0]}
GENERATES |= {"/v1/responses": LIMITS[2]}
BUDGET_S = 8.0
"""Of one endpoint; a rich schema makes more requests than a slow machine has time for"""
MAX_RULES = 3
answered: Counter[tuple[str, int]] = Counter()
spent_s: Counter[str] = Counter()


@pytest.fixture(scope="module")
def described(running):
    document = httpx.get(f"{running.url}/openapi.json").json()
    for schema in document["components"]["schemas"].values():
        # it gives up on more rules about several fields; without one it only asks for more nonsense
        schema["allOf"] = schema.get("allOf", [])[:MAX_RULES]
    config = schemathesis.Config.from_dict({"generation": {"mode": "all"}, "base-url": running.url})
    yield schemathesis.openapi.from_dict(document, config=config)
    tried = {path for path, _ in answered}  # other processes may have run the other paths
    for path in tried & {"/v1/chat/completions", "/v1/completions", "/tokenize"}:
        assert answered[path, 200] and answered[path, 400], "right ones and wrong ones were made"


schema = schemathesis.pytest.from_fixture("described")


def shorten(case) -> None:
    """So that a small model on two cores answers at once; what would be refused is left alone."""
    body, path = case.body, case.operation.path
    if path not in GENERATES or not isinstance(body, dict):
        return
    for name in LIMITS:
        if isinstance(body.get(name), int) and body[name] > 2:
            body[name] = 2
    if not any(body.get(name) for name in LIMITS):
        body[GENERATES[path]] = 2
    if isinstance(body.get("n"), int) and body["n"] > 2:
        body["n"] = 2
    # what a schema cannot say: which name the model has, which objects make a chat
    if isinstance(body.get("model"), str):
        body.pop("model")
    if _are_objects(body.get("messages")):
        body["messages"] = HELLO
    if _are_objects(body.get("tools")):
        body.pop("tools")


def _are_objects(value) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


@schema.parametrize()
@seed(5)
@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_nothing_is_our_fault(case):
    path = case.operation.path
    if spent_s[path] > BUDGET_S:
        return
    shorten(case)
    started = time.monotonic()
    response = case.call(timeout=60)
    spent_s[path] += time.monotonic() - started
    answered[path, response.status_code] += 1
    case.validate_response(response, checks=[not_a_server_error])
