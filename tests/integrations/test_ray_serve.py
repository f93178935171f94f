"""One endpoint over two replicas: openai-python, a death, an update, an orderly end."""

import os
import secrets
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

REPLICA = "ServeReplica:haast:Replica"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
CONVERSATION = [{"role": "system", "content": "You know the words of a dictionary. " * 20}]


def ask(cluster, content, *, stream=False, num_tokens=4, **fields):
    """A chat of one message: a completion, or the chunks of a stream."""
    return cluster.client.chat.completions.create(
        model="haast-tiny",
        messages=[{"role": "user", "content": content}],
        max_tokens=num_tokens,
        stream=stream,
        temperature=0,
        extra_body={"ignore_eos": True},
        **fields,
    )


def answered_by(cluster, work):
    """What `work` returned, and the replicas that read prompts meanwhile."""
    before = cluster.counts(PROMPT_TOKENS)
    result = work()
    after = cluster.counts(PROMPT_TOKENS)
    return result, {name for name in after if after[name] > before.get(name, 0)}


def openai_python(cluster):
    chat = {"messages": [{"role": "user", "content": "What is a bald eagle?"}], "temperature": 0}
    create = cluster.client.chat.completions.create
    whole = create(model="haast-tiny", **chat).choices[0]
    chunks = list(create(model="haast-tiny", stream=True, **chat))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.message.content and text.startswith("A bald eagle is a large eagle")
    assert len(chunks) > 20 and chunks[-1].choices[0].finish_reason == "stop"
    assert [model.id for model in cluster.client.models.list()] == ["haast-tiny"]
    with pytest.raises(openai.NotFoundError, match="'gone' does not exist"):
        create(model="gone", **chat)
    with pytest.raises(openai.BadRequestError) as refused:
        create(model="haast-tiny", top_p=7, **chat)
    assert refused.value.param == "top_p"


def small_endpoints(cluster):
    assert [*cluster.counts("haast:engine_up").values()] == [1, 1]
    told = httpx.get(f"{cluster.url}/health", headers={"x-request-id": "mine"}, timeout=30)
    assert told.json() == {"status": "ok"} and told.headers.get_list("x-request-id") == ["mine"]


def a_conversation_stays_where_its_pages_are(cluster):
    seen = Counter()
    for number in range(30):
        messages = [*CONVERSATION, {"role": "user", "content": f"What is word {number}?"}]

        def turns(messages=messages):
            for _ in range(2):
                answer = cluster.client.chat.completions.create(
                    model="haast-tiny", messages=messages, max_tokens=8, temperature=0
                )
                messages.append({"role": "assistant", "content": "It is a word."})
                messages.append({"role": "user", "content": "What is a piano?"})
            return answer.usage.prompt_tokens_details.cached_tokens

        cached, names = answered_by(cluster, turns)
        assert len(names) == 1 and cached >= 128
        seen.update(names)
        if len(seen) == 2:
            return
    raise AssertionError(f"all conversations went to one replica: {seen}")


def keys_of_both(cluster):
    """Two names for what belongs together, one for each replica."""
    keys = {}
    while len(keys) < 2:
        key = f"key {secrets.token_hex(4)}"
        _, (name,) = answered_by(cluster, lambda key=key: ask(cluster, "A?", prompt_cache_key=key))
        keys.setdefault(name, key)
    return keys


def a_client_may_name_what_belongs_together(cluster):
    for name, key in keys_of_both(cluster).items():
        for fields in ({"prompt_cache_key": key}, {"extra_headers": {"x-session-id": key}}):
            for word in ("flute", "piano"):
                work = lambda f=fields, w=word: ask(cluster, f"What is a {w}?", **f)
                assert answered_by(cluster, work)[1] == {name}


def a_response_is_found_again(cluster):
    responses = cluster.client.responses
    for number in range(2):
        first = responses.create(
            model="haast-tiny", input=f"What is {number}?", max_output_tokens=16
        )
        assert responses.retrieve(first.id).id == first.id
        second = responses.create(
            model="haast-tiny",
            input="What is a piano?",
            previous_response_id=first.id,
            max_output_tokens=16,
        )
        assert second.previous_response_id == first.id and second.id[-16:] == first.id[-16:]
        responses.delete(first.id)


def a_client_that_leaves_frees_its_replica(cluster):
    before = sum(cluster.counts("vllm:request_success_total").values())
    stream = ask(cluster, "What is a bald eagle?", stream=True, num_tokens=2000)
    next(iter(stream))
    assert sum(cluster.counts("vllm:num_requests_running").values()) == 1
    stream.close()
    cluster.until(lambda: sum(cluster.counts("vllm:num_requests_running").values()) == 0)
    assert sum(cluster.counts("vllm:request_success_total").values()) == before + 1


def outcome(cluster, content, stream, on_event=lambda: None, **fields):
    """How a request ended: its last finish reason, or the code of its error."""
    try:
        answer = ask(cluster, content, stream=stream, **fields)
        reason = None
        for part in answer if stream else [answer]:
            reason = part.choices[0].finish_reason
            on_event()
        return reason
    except openai.APIStatusError as error:
        return error.code
    except openai.APIError as error:
        return error.body["code"]


def a_replica_is_killed(cluster):
    """What it was streaming ends with an error; all else is answered by the other one."""
    victim = cluster.processes(REPLICA)[0]
    begun = [threading.Event() for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        streams, wholes = [], []
        for key in [*keys_of_both(cluster).values()] * 2:
            fields = {"num_tokens": 100, "prompt_cache_key": key}
            on_event = begun[len(streams)].set
            streams.append(pool.submit(outcome, cluster, "A?", True, on_event, **fields))
            wholes.append(pool.submit(outcome, cluster, "B?", False, **fields))
        assert all(event.wait(60) for event in begun)
        os.kill(victim, signal.SIGKILL)
        ends = [future.result() for future in streams]
        assert [future.result() for future in wholes] == ["length"] * 4, "asked for again"
    assert sorted(ends) == ["engine_down", "engine_down", "length", "length"]
    for key in (None, "a", "b", "c"):
        assert outcome(cluster, "C?", False, prompt_cache_key=key) == "length"


def an_update_drops_nothing(cluster):
    old = set(cluster.counts("haast:engine_up"))
    is_over = threading.Event()

    def keep_asking(number):
        ends = []
        while not is_over.is_set():
            ends.append(outcome(cluster, f"{number}, {len(ends)}", number == 0, num_tokens=16))
        return ends

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(keep_asking, number) for number in range(2)]
        try:
            cluster.update("--served-model-name", "haast-tiny", "--served-model-name", "new")
        finally:
            is_over.set()
        ends = [end for client in clients for end in client.result()]
    assert set(ends) == {"length"} and len(ends) >= 8
    assert [model.id for model in cluster.client.models.list()] == ["haast-tiny", "new"]
    assert len(set(cluster.counts("haast:engine_up")) - old) == 2


def it_ends_in_order(cluster):
    """SIGTERM ends the cluster, and no process is left."""
    assert cluster.stop() == 0
    cluster.until(lambda: not cluster.processes())


def test_ray_serve(cluster):
    """One test, since a cluster takes too long to be started twice by two processes of tests."""
    openai_python(cluster)
    small_endpoints(cluster)
    a_conversation_stays_where_its_pages_are(cluster)
    a_client_may_name_what_belongs_together(cluster)
    a_response_is_found_again(cluster)
    a_client_that_leaves_frees_its_replica(cluster)
    a_replica_is_killed(cluster)
    an_update_drops_nothing(cluster)
    it_ends_in_order(cluster)
