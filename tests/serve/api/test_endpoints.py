"""The small endpoints."""

import asyncio

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from haast import __version__
from haast.serve.app import ENDPOINTS
from haast.serve.client import EngineStats
from haast.serve.histogram import Histogram
from haast.serve.metrics import Metrics, Timer

from ..fake_client import INFO
from .conftest import HELLO, Api
from .spoken import NEXT, SPECIAL, TOKENIZER, message, says


def test_models():
    api = Api(models=("a", "org/b"))
    document = api.http.get("/v1/models").json()
    assert document["object"] == "list"
    assert [model["id"] for model in document["data"]] == ["a", "org/b"]
    assert document["data"][0] == document["data"][1] | {"id": "a"}
    assert document["data"][0]["max_model_len"] == 640
    assert document["data"][0]["root"] == INFO.model_path
    assert api.http.get("/v1/models/org/b").json() == document["data"][1]
    assert api.http.get("/v1/models/c").status_code == 404
    assert api.chat(model="org/b").json()["model"] == "a"


def test_tokens_and_back(api):
    told = api.post("/tokenize", prompt="Hello é<|end|>", return_token_strs=True).json()
    assert (
        told["tokens"] == TOKENIZER.encode("Hello é<|end|>") and SPECIAL.end not in told["tokens"]
    )
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["token_strs"][0] == "Hello" and told["max_model_len"] == 640
    assert api.post("/detokenize", tokens=told["tokens"]).json() == {"prompt": "Hello é<|end|>"}
    assert api.post("/detokenize", tokens=[SPECIAL.end]).json() == {"prompt": "<|end|>"}
    assert api.post("/tokenize", prompt="").json()["tokens"] == []
    assert "token_strs" not in api.post("/tokenize", prompt="a").json()


@pytest.mark.parametrize(
    "path, body, param",
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": False}, "add_generation_prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [INFO.vocab_size]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
    ],
)
def test_tokens_that_are_refused(api, path, body, param):
    response = api.post(path, **body)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


def test_render_is_the_prompt_of_the_chat(api):
    body = {"messages": [{"role": "system", "content": "Be brief."}, *HELLO]}
    body |= {"reasoning_effort": "low"}
    told = api.post("/v1/chat/completions/render", **body).json()
    assert api.engine.asked == []
    assert told["prompt_token_ids"] == api.asked(**body).prompt_ids
    assert told["prompt"].endswith("<|start|>user<|message|>Hello<|end|><|start|>assistant")
    assert told["count"] == len(told["prompt_token_ids"])
    assert api.post("/tokenize", **body).json()["tokens"] == told["prompt_token_ids"]


def test_the_date_is_told_if_wished_for():
    dated = Api(conversation_date="2026-01-02")
    path = "/v1/chat/completions/render"
    assert "Current date: 2026-01-02" in dated.post(path, messages=HELLO).json()["prompt"]
    assert "Current date" not in Api().post(path, messages=HELLO).json()["prompt"]


def test_health_asks_the_engine(api):
    assert api.http.get("/health").json() == {"status": "ok"}
    assert api.engine.num_probes == 1
    api.engine.down_because = "the engine process was killed"
    response = api.http.get("/health")
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "the engine process was killed"
    assert api.http.get("/ping").status_code == 200


def test_probes_are_shared(api):
    async def ask_five_times():
        await asyncio.gather(*(api.service.probe() for _ in range(5)))
        await api.service.probe()

    asyncio.run(ask_five_times())
    assert api.engine.num_probes == 2


def test_version(api):
    assert api.http.get("/version").json() == {"version": __version__}


def test_openapi_describes_every_endpoint(api):
    document = api.http.get("/openapi.json").json()
    paths = {path.replace(":path", "") for path in ENDPOINTS}
    assert set(document["paths"]) == paths
    chat = document["paths"]["/v1/chat/completions"]["post"]
    name = chat["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
    assert {"messages", "temperature"} <= document["components"]["schemas"][name][
        "properties"
    ].keys()
    assert all(
        reference.split("/")[-1] in document["components"][reference.split("/")[-2]]
        for reference in references(document)
    )


def references(value) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for child in value.values() for found in references(child)]
    return [f for child in value for f in references(child)] if isinstance(value, list) else []


def samples(api: Api) -> dict[tuple[str, ...], float]:
    """(name, further labels) -> value."""
    response = api.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert (labels.pop("model_name"), labels.pop("engine")) == ("tiny", "0")
            found[sample.name, *labels.values()] = sample.value
    return found


def test_metrics():
    ids = [*message("analysis", "Hm."), *NEXT, *message("odd", "x"), SPECIAL.return_]
    api = Api(says(ids))
    asked = api.asked(n=2, max_tokens=50)
    api.asked(n=1)
    api.engine.now = msgspec.structs.replace(
        EngineStats(),
        num_running=3,
        num_waiting=2,
        kv_usage=0.5,
        prefix_hits=7,
        num_preemptions=1,
        steps=9,
        short_steps=4,
    )
    found = samples(api)
    assert found["vllm:num_requests_running",] == 3 and found["vllm:num_requests_waiting",] == 2
    assert found["vllm:kv_cache_usage_perc",] == 0.5
    assert found["vllm:prefix_cache_hits_total",] == 7
    assert found["vllm:prefix_cache_queries_total",] == 0
    assert found["vllm:num_preemptions_total",] == 1
    assert found["haast:engine_steps_total",] == 9
    assert found["haast:shortlisted_steps_total",] == 4
    assert (found["haast:engine_up",], found["haast:engine_restarts_total",]) == (1, 0)
    assert found["vllm:prompt_tokens_total",] == 2 * len(asked.prompt_ids)
    assert found["vllm:generation_tokens_total",] == 3 * len(ids)
    assert found["vllm:request_success_total", "stop"] == 3
    assert found["haast:harmony_anomalies_total", "unknown_channel"] == 3
    assert found["vllm:time_to_first_token_seconds_count",] == 3
    assert found["vllm:inter_token_latency_seconds_count",] == 3 * (len(ids) - 1)
    assert found["vllm:e2e_request_latency_seconds_count",] == 3
    assert found["vllm:request_generation_tokens_sum",] == 3 * len(ids)
    assert found["vllm:request_params_n_sum",] == 3
    assert found["vllm:request_params_max_tokens_sum",] == 50
    assert found["vllm:cache_config_info", str(INFO.kv_tokens)] == 1


def test_metrics_of_guesses():
    """None of a server that does not guess."""
    api = Api()
    assert not any("spec_decode" in name for name, *_ in samples(api))
    api.engine.now = EngineStats(
        num_drafts=5, num_draft_tokens=19, num_accepted_tokens=9, accepted_per_position=(4, 3, 2)
    )
    found = samples(api)
    name = "vllm:spec_decode_num"
    assert found[f"{name}_drafts_total",] == 5
    assert found[f"{name}_draft_tokens_total",] == 19
    assert found[f"{name}_accepted_tokens_total",] == 9
    name = f"{name}_accepted_tokens_per_pos_total"
    assert [found[name, str(place)] for place in range(3)] == [4, 3, 2]


def test_metrics_of_an_engine_that_fell():
    api = Api()
    api.service.metrics.count_restart()
    api.engine.now = EngineStats(dead_because="it burnt")
    found = samples(api)
    assert (found["haast:engine_up",], found["haast:engine_restarts_total",]) == (0, 1)


def test_tokens_after_the_end_are_no_anomaly_if_wished_for():
    api = Api(says([*message("final", "a"), SPECIAL.return_, 5, 6], end="length"))
    api.asked(ignore_eos=True)
    assert api.service.metrics.anomalies == {}
    api.asked()
    assert api.service.metrics.anomalies == {"after_stop": 2}


def test_a_timer():
    metrics, now = Metrics(), [0.0]
    timer = Timer(metrics, lambda: now[0])
    for at, count in ((2.0, 1), (2.5, 0), (3.0, 2), (3.004, 1)):
        now[0] = at
        timer.tokens(count)
    now[0] = 4.0
    timer.end("stop")
    timer.end("abort")
    totals = {name: histogram.total for name, histogram in metrics.histograms.items()}
    assert totals["time_to_first_token_seconds"] == 2.0
    assert totals["inter_token_latency_seconds"] == pytest.approx(1.004)
    assert totals["request_time_per_output_token_seconds"] == pytest.approx(1.004 / 3)
    assert totals["e2e_request_latency_seconds"] == 4.0
    assert totals["request_decode_time_seconds"] == pytest.approx(1.004)
    between = dict(metrics.histograms["inter_token_latency_seconds"].cumulative())
    assert (between["0.003"], between["0.005"], between["0.3"], between["0.5"]) == (0, 1, 1, 3)
    assert metrics.ended == {"stop": 1} and metrics.generation_tokens == 4


def test_a_histogram():
    histogram = Histogram([1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.observe(value, 2)
    assert histogram.cumulative() == [("1.0", 4), ("2.0", 6), ("+Inf", 8)]
    assert histogram.total == 12
