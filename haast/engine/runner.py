"""TorchRunner: computes steps on a device, without waiting for it."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from haast import ops
from haast.engine.call import Call
from haast.engine.extras import Extras
from haast.engine.graphs import StepGraphs
from haast.engine.inbox import Inbox
from haast.engine.inputs import Layout, pack
from haast.engine.launched import Launched, Sampled
from haast.engine.mask_buffer import MaskBuffer
from haast.engine.request import Request
from haast.engine.shortlist import fits_shortlist
from haast.engine.step import Pending, Step
from haast.engine.tables import Tables
from haast.engine.team import Team
from haast.model.gpt_oss import GptOss
from haast.model.kv_cache import KVCache

FEW_ROWS = 8
"""Whose logits a graph holds too; those of many would take 0.4 MB a row and graph"""


class TorchRunner:
    """Runs steps over one model and its KV cache; see `haast.engine.step.Runner`.

    Everything a step needs is copied to the device at once. What a step samples stays there, where
    the next one reads it; the host gets a copy.

    max_pages   pages that the longest request needs
    max_drafts  guesses that a step has rows for besides those of all requests
    pins        for `haast.ops.pin`; with `decode_step` in it, one request decodes by that kernel
    has_graphs  whether decodes, but those in one kernel, and short prompts are replayed as CUDA
                graphs; every op must be capturable
    team        the other ranks, if this is rank 0 of several
    waited_s    how long the host has waited for results
    num_short_steps  those whose logits came by way of a shadow head
    """

    def __init__(
        self,
        model: GptOss,
        kv: KVCache,
        *,
        max_batch_size: int,
        max_batch_input_tokens: int,
        max_pages: int,
        page_size: int,
        pins: dict[str, str],
        has_graphs: bool,
        max_drafts: int = 0,
    ) -> None:
        device, vocab_size = model.device, model.config.vocab_size
        self.model = model
        self.kv = kv
        self.pins = pins
        self.waited_s = 0.0
        self.num_short_steps = 0
        self._num_fresh = 0
        self._tables = Tables(max_batch_size, max_pages, page_size, vocab_size)
        self._extras = Extras(vocab_size, device)
        max_rows = max_batch_size + max_drafts
        self._masks = MaskBuffer(max_rows, vocab_size, device)
        self._samples = torch.zeros(max_rows, dtype=torch.int64, device=device)
        largest = Layout(max_batch_input_tokens, max_rows, max_rows)
        self._inbox = Inbox(largest, (max_batch_size, max_pages), device)
        is_persistent = pins.get("decode_step") == ops.PERSISTENT
        self._alone = model.persistent_step(kv) if is_persistent else None
        self._graphs: StepGraphs | None = None
        if has_graphs:
            self._graphs = StepGraphs(self._replayed, max_rows, max_batch_input_tokens)
        self.team: Team | None = None

    @torch.inference_mode()
    def launch(self, step: Step) -> Pending:
        """Start a step; one with masked rows only up to its logits."""
        with ops.pin(self.pins):
            decodes, requests = step.num_decodes, len(step.requests)
            graphs, count = self._graphs, len(step.sampling)
            layout = graphs.layout_for(requests, decodes, step.num_tokens) if graphs else None
            is_replayed = layout is not None
            layout = layout or Layout(step.num_tokens, requests, count)
            call = self._call(step, layout, count, is_replayed)
            logits = self.compute(call)
            launched = Launched(self, step, call.layout, logits)
            if not step.masked:
                launched.take(*self._sample(step, call.layout, logits, None))
            return launched

    @torch.inference_mode()
    def compute(self, call: Call) -> Tensor:
        """Start a forward pass, on all ranks; its logits [num_rows, V] or [T, V]."""
        with self.team.working_on(call) if self.team else nullcontext(), ops.pin(self.pins):
            is_told = self._alone is not None and call.is_lone  # by the kernel
            if self.model.ranks is not None and call.num_samples and not is_told:
                self.model.ranks.pass_on(self._samples[: call.num_samples])
            return self._compute(call)

    def lead(self, team: Team) -> None:
        """Be rank 0 of several."""
        self.team = team
        if self._graphs is not None:
            team.hold(self._graphs.captured)

    def masks(self, step: Step) -> memoryview:
        """Memory of the host for the masks of a step."""
        return self._masks.masks(len(step.masked))

    @torch.inference_mode()
    def sample(self, step: Step, layout: Layout, logits: Tensor) -> Sampled:
        """Start the sampling of a launched step whose masks are filled."""
        with ops.pin(self.pins):
            masks = self._masks.send(step.masked, len(step.sampling))
            return self._sample(step, layout, logits, masks)

    @torch.inference_mode()
    def logits(self, step: Step) -> Tensor:
        """Logits after every token of a step [T, V]; samples nothing."""
        layout = Layout(step.num_tokens, len(step.requests), 0)
        return self.compute(self._call(step, layout, None, is_replayed=False))

    @property
    def has_persistent(self) -> bool:
        """Whether decodes of one request run in one kernel."""
        return self._alone is not None

    @torch.inference_mode()
    def stamped_decode(self) -> Tensor:
        """Compute the last step, a decode of one request, again; its stamps, see `ops.DecodeStep`.

        Its input is the token that was sampled since: it leaves other keys at that position.
        """
        assert self._alone is not None and self.model.ranks is None
        inputs = self._inbox.of_one(Layout(1, 1, 1), self._samples)
        return self._alone.stamped(inputs, has_head=self.model.shadow is None)

    def forget(self, request: Request) -> None:
        """No later step continues the request."""
        self._tables.leave(request)
        self._extras.leave(request)

    def is_alive(self) -> bool:
        """Whether the device, and every other rank, still works."""
        if self.team is not None and not self.team.is_alive():
            return False
        if self.model.device.type == "cuda":
            try:
                torch.cuda.synchronize(self.model.device)
            except RuntimeError:
                return False
        return True

    def _call(self, step: Step, layout: Layout, num_rows: int | None, is_replayed: bool) -> Call:
        """A step's numbers and its new pages."""
        rows, fresh = self._tables.rows(step)
        for request in fresh:
            self._extras.enter(request)
        if num_rows is not None:
            layout = self._with_head(layout, step)
        new_pages = self._tables.new_pages(step, rows)
        sampling = np.fromiter(compress(rows, step.samples), np.int64, len(step.sampling))
        settings = self._tables.settings[sampling]
        call = Call(
            layout=layout,
            words=pack(step, rows, settings, self._tables.page_size, layout),
            new_pages=new_pages,
            num_decodes=step.num_decodes,
            num_rows=num_rows,
            most_tokens=max(step.counts),
            is_replayed=is_replayed,
            num_samples=self._num_fresh if max(step.input_rows, default=-1) >= 0 else 0,
        )
        self._num_fresh = 0
        return call

    def _compute(self, call: Call) -> Tensor:
        self._inbox.send(call.words, call.new_pages)
        layout, decodes = call.layout, call.num_decodes
        if call.num_rows is None:
            return self.model.logits(self._forward(layout, decodes, call.most_tokens))
        if not call.is_replayed:
            rows = self._sampled_rows(layout, decodes, call.most_tokens)
            return self._logits(layout, rows) if call.num_rows else rows
        if self._alone is not None and call.is_lone and self.model.shadow is None:
            return self._alone(self._inbox.of_one(layout, self._samples))
        assert self._graphs is not None, call
        rows = self._graphs.run(layout, layout.num_requests if decodes else 0)[: call.num_rows]
        return rows if _has_logits(layout) else self.model.logits(rows)

    def _with_head(self, layout: Layout, step: Step) -> Layout:
        """By way of the shadow head if it gives a step's tokens; requests were entered."""
        has_none = self.model.shadow is None or not fits_shortlist(step)
        if has_none or self._extras.are_wanted(step):
            return layout
        self.num_short_steps += 1
        return replace(layout, is_short=True)

    def _replayed(self, layout: Layout, num_decodes: int) -> Tensor:
        """What graphs replay: logits of few rows (of a lone one short ones), else hidden states."""
        if self._alone is not None and layout.num_requests == num_decodes == 1:
            inputs = self._inbox.of_one(layout, self._samples)
            return self._logits(layout, self._alone.hidden(inputs))
        hidden = self._sampled_rows(layout, num_decodes, layout.num_tokens)
        return self._logits(layout, hidden) if _has_logits(layout) else hidden

    def _logits(self, layout: Layout, hidden: Tensor) -> Tensor:
        """Of the rows that sample."""
        if not layout.is_short:
            return self.model.logits(hidden)
        return self.model.short_logits(hidden, self._inbox.sampling(layout, len(hidden)))

    def _sampled_rows(self, layout: Layout, num_decodes: int, most_tokens: int) -> Tensor:
        """Hidden states after which the step in the inbox samples, in order."""
        hidden = self._forward(layout, num_decodes, most_tokens)
        if num_decodes == layout.num_requests:
            return hidden
        return hidden.index_select(0, self._inbox.fields(layout)["sample_index"])

    def _forward(self, layout: Layout, num_decodes: int, most_tokens: int) -> Tensor:
        """Hidden states [T, H] of what lies in the inbox."""
        fields = self._inbox.fields(layout)
        input_rows = fields["input_rows"]
        sampled = self._samples.index_select(0, input_rows.clamp(min=0))
        token_ids = torch.where(input_rows >= 0, sampled, fields["input_ids"])
        meta = self._inbox.meta(layout, num_decodes, most_tokens)
        return self.model.forward(token_ids, meta, self.kv)

    def _sample(
        self, step: Step, layout: Layout, logits: Tensor, masks: ops.Masks | None
    ) -> Sampled:
        count = len(step.sampling)
        if count == 0:
            return self._samples[:0], None
        sampling = self._inbox.sampling(layout, count)
        token_ids, logprobs = self._extras.sample(step, logits, sampling, masks)
        self._samples[:count].copy_(token_ids)
        self._num_fresh = count
        return token_ids, logprobs


def _has_logits(layout: Layout) -> bool:
    """Whether its graph holds the head too."""
    return layout.is_short or layout.num_samples <= FEW_ROWS
