"""Weights -> an engine that is ready to generate."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Self

import torch

from haast.config import ConfigError
from haast.engine.load import Loaded, Prepared, assemble, out_of_memory
from haast.engine.masks import Grammars
from haast.engine.team import Team
from haast.model.weights import Progress


class Loading:
    """A model on its way, with the other ranks. Dummy weights are begun at once: a GPU works on
    them while the tokenizer is read. Files are read by `finish`, when all else has proved right.

    As a context: no rank stays if something in it fails.
    Raises CheckpointError for flaws only the bytes can show, ConfigError if memory runs out,
    RankError if another rank cannot be loaded; so does `finish`.
    """

    def __init__(self, prepared: Prepared, progress: Progress | None = None) -> None:
        self._prepared = prepared
        self._team = Team.start(prepared.place, prepared.plan)
        self._make = cache(partial(prepared.make_parameters, progress))
        if prepared.place.config.load_format == "dummy":
            with self, self._explained():
                self._make()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._team is not None:
            self._team.close()

    def finish(self, stop_ids: frozenset[int], grammars: Grammars | None = None) -> Loaded:
        """An engine that is ready to generate.

        stop_ids  the model's own stop tokens
        grammars  for requests that have one
        """
        prepared, team = self._prepared, self._team
        with self._explained():
            parameters = self._make()
            ranks = team.join(prepared.config.hidden_size) if team else None
            model = prepared.model(parameters, ranks)
            loaded = assemble(model, prepared.plan, stop_ids, grammars=grammars)
        if team is not None:
            loaded.runner.lead(team)
        return loaded

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What it means to run out of memory here."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise ConfigError(out_of_memory(error)) from None


def load(prepared: Prepared, stop_ids: frozenset[int]) -> Loaded:
    """See `Loading`."""
    with Loading(prepared) as loading:
        return loading.finish(stop_ids)
