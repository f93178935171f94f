"""Responses that are kept: how many, how long, and what may be asked of them."""

import pytest

from haast.serve.responses_api.store import ResponseStore, Stored, new_turn

from .conftest import Api
from .spoken import says, thought_and_said
from .told import refused, respond, whole


def item(name: str, text: str = "") -> dict:
    return {"id": name, "type": "message", "content": text}


def stored(name: str, previous: Stored | None = None, size: int = 0) -> Stored:
    """A response with one item in, one out; size: of its document."""
    turn = new_turn([item(f"in_{name}")], previous.turn if previous else None)
    turn = turn.with_output([item(f"out_{name}")])
    return Stored(name, turn, b'"' + b"x" * size + b'"')


def size_of(*responses: Stored) -> int:
    return sum(r.num_bytes + r.turn.num_bytes for r in responses)


def test_the_least_recently_used_goes_first():
    store = ResponseStore(1 << 20, max_responses=2)
    for name in "ab":
        store.put(stored(name))
    assert store.get("a").id == "a"
    store.put(stored("c"))
    assert store.get("b") is None and store.get("a") and store.get("c") and len(store) == 2
    assert store.find_item("out_b") is None and store.find_item("in_a") == item("in_a")
    store.put(stored("d"))
    assert store.get("c") is None, "finding an item of a made it more recent"
    assert store.get("a") and store.get("d")


def test_bytes_are_bounded_and_counted():
    one = stored("one", size=1000)
    store = ResponseStore(size_of(one) * 2)
    store.put(one)
    assert store.num_bytes == size_of(one)
    store.put(stored("two", size=1000))
    store.put(stored("six", size=1000))
    assert store.get("one") is None and len(store) == 2
    assert store.num_bytes == size_of(one) * 2
    store.put(stored("big", size=1 << 20))
    assert len(store) == 0 and store.num_bytes == 0


def test_turns_that_say_nothing_are_counted():
    store = ResponseStore(1 << 20, max_responses=1)
    turn = None
    for number in range(5):
        turn = new_turn([], turn)
        store.put(Stored(str(number), turn, b"{}"))
    assert len(store) == 1 and store.num_bytes > 5 * 1024


def test_a_conversation_outlives_its_first_responses():
    store = ResponseStore(1 << 20)
    first = stored("a", size=500)
    second = stored("b", first)
    third = stored("c", second)
    for each in (first, second, third):
        store.put(each)
    total = size_of(first, second, third)
    assert store.num_bytes == total
    assert store.delete("a") is first and store.get("a") is None
    assert store.num_bytes == total - first.num_bytes, "its turn is needed"
    names = [i["id"] for i in third.turn.context()]
    assert names == ["in_a", "out_a", "in_b", "out_b", "in_c"]
    assert store.find_item("out_a") is None
    store.delete("c")
    assert store.num_bytes == size_of(second) + first.turn.num_bytes
    store.delete("b")
    assert store.num_bytes == 0 and store.delete("b") is None


def test_an_item_given_again_is_found_as_long_as_its_last_response_is_kept():
    store = ResponseStore(1 << 20)
    for name in "ab":
        store.put(Stored(name, new_turn([item("same", name)], None), b"1"))
    store.delete("a")
    assert store.find_item("same") == item("same", "b")
    store.delete("b")
    assert store.find_item("same") is None and not store._places, "nothing is left behind"


def test_a_branch_keeps_what_it_shares():
    store = ResponseStore(1 << 20)
    root = stored("root")
    left, right = stored("left", root), stored("right", root)
    for each in (root, left, right):
        store.put(each)
    store.delete("root")
    store.delete("left")
    assert store.num_bytes == size_of(right) + root.turn.num_bytes
    store.put(right)
    assert store.num_bytes == size_of(right) + root.turn.num_bytes


def test_a_response_is_shown_again_until_it_is_deleted(api):
    made = whole(api, metadata={"a": "b"})
    path = f"/v1/responses/{made['id']}"
    assert api.http.get(path).json() == made == api.http.get(path).json()
    deleted = {"id": made["id"], "object": "response", "deleted": True}
    assert api.http.delete(path).json() == deleted
    for response in (
        api.http.get(path),
        api.http.delete(path),
        api.http.get(f"{path}/input_items"),
        api.http.post(f"{path}/cancel"),
    ):
        assert response.status_code == 404
        message = f"Response with id {made['id']!r} not found."
        assert response.json()["error"]["message"] == message
        assert response.json()["error"]["type"] == "invalid_request_error"
    assert whole(api)["status"] == "completed" and len(api.service.responses) == 1


def test_what_is_not_stored_is_not_found(api):
    made = whole(api, store=False)
    assert not made["store"] and api.http.get(f"/v1/responses/{made['id']}").status_code == 404
    off = Api(response_store_mib=0)
    assert not whole(off)["store"] and len(off.service.responses) == 0
    assert refused(off, background=True)[0] == "background"


def test_the_store_of_a_server_is_bounded():
    api = Api(says(thought_and_said("Hm.", "Hello there.")), response_store_mib=1)
    names = [whole(api, input="a", user="u" * 400_000)["id"] for _ in range(4)]
    found = [api.http.get(f"/v1/responses/{name}").status_code for name in names]
    assert found == [404, 404, 200, 200] and api.service.responses.num_bytes <= 1 << 20


def test_input_items_by_the_page(api):
    given = [{"role": "user", "content": str(n), "id": f"msg_{n}"} for n in range(25)]
    path = f"/v1/responses/{whole(api, input=given)['id']}/input_items"

    def page(query=""):
        shown = api.http.get(f"{path}?{query}").json()
        names = [int(i["id"].removeprefix("msg_")) for i in shown["data"]]
        assert shown["object"] == "list"
        assert (shown["first_id"], shown["last_id"]) == (f"msg_{names[0]}", f"msg_{names[-1]}")
        return names, shown["has_more"]

    assert page() == (list(range(24, 4, -1)), True)
    assert page("after=msg_5") == (list(range(4, -1, -1)), False)
    assert page("order=asc&limit=2") == ([0, 1], True)
    assert page("limit=25") == (list(range(24, -1, -1)), False)
    assert page("order=asc&limit=100&after=msg_3") == (list(range(4, 25)), False)
    assert api.http.get(f"{path}?after=msg_0").json()["data"] == []
    for query in ("order=up", "limit=0", "limit=101", "limit=x", "after=msg_99"):
        response = api.http.get(f"{path}?{query}")
        assert response.status_code == 400
        assert response.json()["error"]["param"] == query.split("=")[0]


def test_only_what_ran_in_the_background_is_cancelled_or_streamed_again(api):
    path = f"/v1/responses/{whole(api)['id']}"
    response = api.http.post(f"{path}/cancel")
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "Cannot cancel a synchronous response."
    assert api.http.get(f"{path}?stream=false").status_code == 200
    for query, param in [
        ("stream=true", "stream"),
        ("stream=yes", "stream"),
        ("starting_after=3", "starting_after"),
        ("include=message.output_text.logprobs", "include"),
        ("include[]=reasoning.encrypted_content", "include"),
        ("include_obfuscation=true", "include_obfuscation"),
    ]:
        response = api.http.get(f"{path}?{query}")
        assert response.status_code == 400 and response.json()["error"]["param"] == param


@pytest.mark.parametrize("method", ["put", "patch"])
def test_methods(api, method):
    assert getattr(api.http, method)("/v1/responses/resp_1").status_code == 405
    assert respond(api).status_code == 200
