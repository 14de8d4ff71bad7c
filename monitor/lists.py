"""Lists made on request: a ranker that one thread calls, away from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from monitor.http.problems import Problem
from stream.schema.ranked_items import RankedItems, Ranker, RankerNotReady, SessionEvent

_T = TypeVar("_T")


class ListsOnRequest:
    """Asks the ranker from a thread of its own.

    Every method raises `Problem`: 404 without a ranker, 503 while the ranker has no model.

    Parameters
    ----------
    ranker
        None: this monitor has no access to a model.
    """

    def __init__(self, ranker: Ranker | None) -> None:
        self._ranker = ranker
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ranker")

    @property
    def available(self) -> bool:
        """Whether there is a model."""
        return self._ranker is not None and self._ranker.ready

    async def rank(self, events: Sequence[SessionEvent], k: int, exclude: Collection[str]) -> RankedItems:
        """The k best items for somebody with these events, oldest first; popular ones where there are none."""
        ranker = self._checked()
        return await self._call(lambda: ranker.rank(events, k, exclude))

    async def similar(self, item: str, k: int, exclude: Collection[str]) -> RankedItems | None:
        """The k best items for somebody who took this one alone; None where the model does not know it."""
        ranker = self._checked()
        return await self._call(lambda: ranker.similar(item, k, exclude))

    def close(self) -> None:
        """Wait for the request at hand."""
        self._thread.shutdown()

    def _checked(self) -> Ranker:
        if self._ranker is None:
            raise Problem(404, "this monitor has no model to make lists with: give it the worker's folder (`--state`)")
        return self._ranker

    async def _call(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RankerNotReady as exc:
            raise Problem(503, str(exc), {"retry-after": "5"}) from None
