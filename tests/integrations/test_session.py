"""Which requests go to one replica."""

import json

import pytest

from haast.integrations.session import session_of

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
USER = {"role": "user", "content": "What is a piano?"}
SYSTEM = {"role": "system", "content": "Be brief."}
ID = "resp_" + "0" * 32 + "00112233445566ff"


def session(path=CHAT, headers=None, **body):
    return session_of(path, headers or {}, json.dumps(body).encode())


def test_turns_of_a_conversation_are_one_session():
    first = session(messages=[SYSTEM, USER])
    later = [SYSTEM, USER, {"role": "assistant", "content": "It is."}, {**USER, "content": "Why?"}]
    assert session(messages=later, temperature=1) == first and len(first) == 16
    assert int(first, 16)


def test_other_beginnings_are_other_sessions():
    bodies = [
        {"messages": [SYSTEM, USER]},
        {"messages": [USER]},
        {"messages": [{**SYSTEM, "content": "Be long."}, USER]},
        {"messages": [SYSTEM, {**USER, "content": "What is a flute?"}]},
        {"messages": [{**SYSTEM, "role": "user"}, USER]},
        {"messages": [{**SYSTEM, "role": "developer"}, USER]},
        {"input": "What is a piano?", "instructions": "Be brief."},
    ]
    assert len({session(**body) for body in bodies}) == len(bodies)


def test_a_text_is_a_message_of_the_user():
    asked = session(RESPONSES, input="What is a piano?", instructions="Be brief.")
    listed = [USER, {"type": "reasoning", "summary": []}, {**USER, "content": "Why?"}]
    assert session(RESPONSES, input=listed, instructions="Be brief.") == asked
    assert session(RESPONSES, input=listed) != asked


@pytest.mark.parametrize(
    "body",
    [{}, {"prompt": "What is a piano?"}, {"messages": []}, {"messages": [SYSTEM]}, {"input": []}],
)
def test_nothing_tells(body):
    assert session(**body) == ""


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": 3}', b'"\xff"'])
def test_what_is_no_request_tells_nothing(body):
    assert session_of(CHAT, {}, body) == ""
    assert session_of(CHAT, {b"x-session-id": b"mine"}, body) == named()


def named():
    return session(headers={b"x-session-id": b"mine"})


def test_who_is_heard_first():
    every = {"previous_response_id": ID, "prompt_cache_key": "k", "input": "What?"}
    headers = {b"x-session-id": b"mine"}
    assert session(RESPONSES, headers, **every) == "00112233445566ff"
    del every["previous_response_id"]
    keyed = session(RESPONSES, headers, **every)
    assert keyed == session(prompt_cache_key="k", messages=[USER])
    del every["prompt_cache_key"]
    assert session(RESPONSES, headers, **every) == named() != keyed
    assert session(RESPONSES, **every) not in (named(), keyed, "")


@pytest.mark.parametrize("path", [f"{RESPONSES}/{ID}", f"{RESPONSES}/{ID}/cancel"])
def test_a_response_is_where_it_was_made(path):
    assert session_of(path, {b"x-session-id": b"mine"}, b"") == "00112233445566ff"


@pytest.mark.parametrize("name", [ID[:-16], ID[:-1], ID + "0", ID[:-1] + "g"])
def test_ids_of_a_server_without_a_front_tell_nothing(name):
    assert session(RESPONSES, previous_response_id=name) == ""
    assert session_of(f"{RESPONSES}/{name}", {}, b"") == ""
