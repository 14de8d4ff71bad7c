"""A list made on request, and what a request says of somebody's events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from stream.schema.messages import Source


class SessionEvent(NamedTuple):
    """One event of the history that a list is made for."""

    item: str
    action: int
    """action code"""
    ts: int
    """epoch milliseconds"""


@dataclass(frozen=True, slots=True)
class RankedItems:
    """Items, best first, and the model that ranked them."""

    items: list[str]
    scores: list[float]
    source: Source
    intent: int | None
    """id of the intent nearest to the history"""
    because: list[str]
    """the recent items that drove the list, strongest first"""
    step: int
    """engine step of the checkpoint"""
    model_step: int
    """optimizer steps of its weights"""


class RankerNotReady(Exception):
    """There is no model yet to rank with; the text says why, in one line."""


class Ranker(Protocol):
    """Ranks on request, without changing anything. One thread at a time may call it.

    Every method raises `RankerNotReady` while there is no model.
    """

    @property
    def ready(self) -> bool:
        """Whether there is a model."""
        ...

    def rank(self, events: Sequence[SessionEvent], k: int, exclude: Collection[str] = ()) -> RankedItems:
        """The k best items for somebody with these events, oldest first; popular ones where there are none."""
        ...

    def similar(self, item: str, k: int, exclude: Collection[str] = ()) -> RankedItems | None:
        """The k best items for somebody who took this one alone; None where the model does not know it."""
        ...


__all__ = ["RankedItems", "Ranker", "RankerNotReady", "SessionEvent"]
