"""Intake: what a user asks for -> checked requests. Pure Python."""

import secrets
from collections.abc import Sequence
from hashlib import blake2b

from haast.engine.drafts import Drafter
from haast.engine.kv_pages import KVPages
from haast.engine.limits import Limits
from haast.engine.masks import Constraint, Grammars
from haast.engine.request import Request, RequestError, SamplingParams


def sibling_seed(seed: int, index: int) -> int:
    """Seed of answer `index` to one call: the call's own, then hashes of it and the index."""
    if index == 0:
        return seed
    data = seed.to_bytes(8, "little") + index.to_bytes(8, "little")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


class Intake:
    """Makes requests, and refuses those that could not run even alone.

    stop_ids  the model's own stop tokens
    grammars  None = requests may have none
    drafter   guesses at the tokens of those that it serves; None = of nobody
    """

    def __init__(
        self,
        kv: KVPages,
        limits: Limits,
        vocab_size: int,
        stop_ids: frozenset[int],
        grammars: Grammars | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        self.kv = kv
        self.limits = limits
        self.vocab_size = vocab_size
        self.stop_ids = stop_ids
        self.grammars = grammars
        self.drafter = drafter

    def requests(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        salt: str | None = None,
    ) -> list[Request]:
        """The params.n answers to one prompt. Raises RequestError, in one line."""
        prompt_ids = list(prompt_ids)
        seed = secrets.randbits(64) if params.seed is None else params.seed
        if params.n > 1 and not self.kv.prefixes.is_enabled:
            salt = secrets.token_hex()  # they share with each other and with nobody else
        requests = [
            Request(
                prompt_ids=prompt_ids,
                params=params,
                seed=sibling_seed(seed, index),
                max_new_tokens=params.max_new_tokens
                or max(1, self.limits.max_length - len(prompt_ids)),
                stop_ids=self.stop_ids,
                priority=priority,
                salt=salt,
                has_siblings=params.n > 1,
            )
            for index in range(params.n)
        ]
        self._check_ids(requests[0])
        self._check_size(requests[0])
        for request in requests:
            request.constraint = self._constraint(params)
            if self.drafter is not None:
                request.drafts = self.drafter.drafts_for(params)
        return requests

    def _constraint(self, params: SamplingParams) -> Constraint | None:
        """Of one answer; the others have matchers of their own."""
        matcher = None
        if params.grammar is not None:
            if self.grammars is None:
                raise RequestError("grammar: this engine has no tokenizer to match one with")
            matcher = self.grammars.matcher(params.grammar)
        elif params.allowed_token_ids is None:
            return None
        return Constraint(matcher, params.allowed_token_ids)

    def _check_ids(self, request: Request) -> None:
        if not request.prompt_ids:
            raise RequestError("the prompt has no tokens")
        params = request.params
        named = (
            ("", request.prompt_ids),
            ("logit_bias: ", params.logit_bias or ()),
            ("stop_token_ids: ", params.stop_token_ids),
            ("allowed_token_ids: ", params.allowed_token_ids or ()),
        )
        for what, ids in named:
            if ids and not (0 <= min(ids) and max(ids) < self.vocab_size):
                wrong = next(i for i in ids if not 0 <= i < self.vocab_size)
                raise RequestError(
                    f"{what}token id {wrong} is not in the vocabulary of {self.vocab_size}"
                )

    def _check_size(self, request: Request) -> None:
        if request.max_tokens > self.limits.max_length:
            raise RequestError(
                f"prompt of {len(request.prompt_ids)} tokens and {request.max_new_tokens} new ones "
                f"exceed max_length {self.limits.max_length}"
            )
        pages = self.kv.pages_for(request.last_position)
        for pool, needed in (
            (self.kv.full, pages),
            (self.kv.sliding, min(pages, self.kv.window_span)),
        ):
            if needed > pool.num_pages:
                raise RequestError(
                    f"prompt of {len(request.prompt_ids)} tokens and {request.max_new_tokens} new "
                    f"ones need {needed} {pool.label} pages of the KV cache, which has "
                    f"{pool.num_pages}"
                )
