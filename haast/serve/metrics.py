"""What Prometheus is told, under vLLM's names, in seconds and tokens."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from haast.serve.client import EngineClient
from haast.serve.histogram import Histogram
from haast.serve.messages import EngineStats

_LABELS = ("model_name", "engine")
_MS = 1e-3
SHORT = [
    *(step * _MS for step in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 75)),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0),
]
"""Between tokens: a Hopper GPU decodes in 1 to 10 ms"""
LONG = [*SHORT, 160.0, 640.0, 2560.0]
LATENCY = [*(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0)]
LATENCY += [30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0]
TOKENS = [float(digit * 10**power) for power in range(6) for digit in (1, 2, 5)]
ANSWERS = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 128.0]
_HISTOGRAMS: Mapping[str, tuple[str, list[float]]] = {
    "time_to_first_token_seconds": ("From the request to its first tokens.", LONG),
    "inter_token_latency_seconds": ("Between a token and the next.", SHORT),
    "request_time_per_output_token_seconds": ("Mean time a token after the first.", SHORT),
    "e2e_request_latency_seconds": ("From the request to its last token.", LATENCY),
    "request_decode_time_seconds": ("From the first token to the last.", LATENCY),
    "request_prompt_tokens": ("Tokens of a prompt.", TOKENS),
    "request_generation_tokens": ("Tokens of an answer.", TOKENS),
    "request_params_max_tokens": ("The max_tokens of a request.", TOKENS),
    "request_params_n": ("The n of a request.", ANSWERS),
}


class Metrics:
    """All that is counted in the server; what the engine counts is asked for when scraped."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.engine_restarts = 0
        self.ended: Counter[str] = Counter()
        self.anomalies: Counter[str] = Counter()
        self.histograms = {name: Histogram(bounds) for name, (_, bounds) in _HISTOGRAMS.items()}

    def count_restart(self) -> None:
        self.engine_restarts += 1

    def observe(self, name: str, value: float, count: int = 1) -> None:
        self.histograms[name].observe(value, count)


class Exposition(Collector):
    """Metrics in Prometheus' text format."""

    def __init__(self, metrics: Metrics, client: EngineClient, model: str, engine: str) -> None:
        self._metrics = metrics
        self._client = client
        self._values = (model, engine)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for at every scrape."""
        yield from self._of_engine()
        metrics = self._metrics
        yield self._counter("prompt_tokens", "Tokens of prompts.", metrics.prompt_tokens)
        yield self._counter("generation_tokens", "Generated tokens.", metrics.generation_tokens)
        yield self._by(
            "vllm:request_success", "Answers that ended.", "finished_reason", metrics.ended
        )
        yield self._by(
            "haast:harmony_anomalies", "Harmony format errors.", "kind", metrics.anomalies
        )
        for name, (text, _) in _HISTOGRAMS.items():
            histogram = metrics.histograms[name]
            family = HistogramMetricFamily(f"vllm:{name}", text, labels=_LABELS)
            family.add_metric(self._values, histogram.cumulative(), histogram.total)
            yield family

    def _of_engine(self) -> Iterator[Metric]:
        stats = self._client.stats()
        is_up = stats.dead_because is None
        yield self._gauge("engine_up", "Whether there is an engine.", is_up, "haast")
        restarts = self._metrics.engine_restarts
        text = "Engines started after one fell."
        yield self._counter("engine_restarts", text, restarts, "haast")
        yield self._gauge("num_requests_running", "Requests that run.", stats.num_running)
        yield self._gauge("num_requests_waiting", "Requests that wait.", stats.num_waiting)
        yield self._gauge("kv_cache_usage_perc", "Share of the KV cache in use.", stats.kv_usage)
        queries, hits = stats.prefix_queries, stats.prefix_hits
        yield self._counter("prefix_cache_queries", "Prompt tokens looked up.", queries)
        yield self._counter("prefix_cache_hits", "Prompt tokens found cached.", hits)
        yield self._counter("num_preemptions", "Requests put back to wait.", stats.num_preemptions)
        text = "Steps of the engine."
        yield self._counter("engine_steps", text, stats.steps, "haast")
        text = "Steps whose tokens a shadow of the head found."
        yield self._counter("shortlisted_steps", text, stats.short_steps, "haast")
        yield from self._of_guesses(stats)
        config = InfoMetricFamily("vllm:cache_config", "The KV cache.", labels=_LABELS)
        config.add_metric(self._values, {"num_tokens": str(self._client.info.kv_tokens)})
        yield config

    def _of_guesses(self, stats: EngineStats) -> Iterator[Metric]:
        """Only of a server that guesses."""
        if not stats.accepted_per_position:
            return
        for name, text, value in (
            ("num_drafts", "Times that next tokens were guessed.", stats.num_drafts),
            ("num_draft_tokens", "Guessed tokens.", stats.num_draft_tokens),
            ("num_accepted_tokens", "Guessed tokens that were right.", stats.num_accepted_tokens),
        ):
            yield self._counter(f"spec_decode_{name}", text, value)
        name = "vllm:spec_decode_num_accepted_tokens_per_pos"
        counts = {str(place): n for place, n in enumerate(stats.accepted_per_position)}
        yield self._by(name, "Guesses at a place that were right.", "position", counts)

    def _gauge(self, name: str, text: str, value: float, prefix: str = "vllm") -> Metric:
        family = GaugeMetricFamily(f"{prefix}:{name}", text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float, prefix: str = "vllm") -> Metric:
        family = CounterMetricFamily(f"{prefix}:{name}", text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _by(self, name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
        family = CounterMetricFamily(name, text, labels=(*_LABELS, label))
        for key, count in sorted(counts.items()):
            family.add_metric((*self._values, key), count)
        return family


class Timer:
    """Times one answer, from the call on."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._started = clock()
        self._first = self._last = 0.0
        self._num_tokens = 0
        self._is_open = True

    def tokens(self, count: int) -> None:
        """`count` tokens have come."""
        if not count:
            return
        now = self._clock()
        if self._num_tokens:
            each = (now - self._last) / count
            self._metrics.observe("inter_token_latency_seconds", each, count)
        else:
            self._first = now
            self._metrics.observe("time_to_first_token_seconds", now - self._started)
        self._last = now
        self._num_tokens += count
        self._metrics.generation_tokens += count

    def end(self, reason: str) -> None:
        """The answer has ended; `abort` if nobody wants it any more, `error` if it failed.

        Further ends count nothing, and an answer without tokens only how it ended.
        """
        if not self._is_open:
            return
        self._is_open = False
        self._metrics.ended[reason] += 1
        if not self._num_tokens:
            return
        observe, decode_s = self._metrics.observe, self._last - self._first
        observe("e2e_request_latency_seconds", self._clock() - self._started)
        observe("request_generation_tokens", self._num_tokens)
        observe("request_decode_time_seconds", decode_s)
        if self._num_tokens > 1:
            each = decode_s / (self._num_tokens - 1)
            observe("request_time_per_output_token_seconds", each)
