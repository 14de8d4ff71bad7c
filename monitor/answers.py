"""The JSON answers of the HTTP API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from monitor.view.records import DeadLetterView, Episode
from stream.schema.events import MAX_ID_BYTES, MAX_TS, MIN_TS
from stream.schema.messages import (
    AsOf,
    ErasureReceipt,
    Intent,
    IntentShift,
    Recommendations,
    Recommended,
    Source,
    StreamMetrics,
)


class EventRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why one event of a request was not appended."""

    index: Annotated[int, Meta(description="place in the request, from 0")]
    reason: str
    field: str
    value: Annotated[str, Meta(description="the value that was sent, shortened")]
    rule: str


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a request: events that are not in `refused` are durable in the log."""

    appended: int
    refused: list[EventRefusal] = []


class SessionEventBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event of a session that is sent along."""

    item: Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
    ts: Annotated[int, Meta(ge=MIN_TS, lt=MAX_TS, description="event time, epoch milliseconds")]
    action: Annotated[str | None, Meta(description="a name from the configuration; none: the first of them")] = None


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for a list by somebody's events. Nothing of it is kept."""

    events: Annotated[list[SessionEventBody], Meta(max_length=1000, description="in any order")]
    k: Annotated[int, Meta(ge=1, le=100, description="most items of the answer")] = 10
    exclude: Annotated[list[str], Meta(max_length=1000, description="items that the list must not hold")] = []


class HistoryEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a user."""

    item: str
    ts: Annotated[int, Meta(description="event time, epoch milliseconds")]
    action: str | None = None


class ItemList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Items, best first. A list that was published has all fields; one made on request has no `user` and `as_of`."""

    user: str | None = None
    items: list[Recommended]
    source: Annotated[Source, Meta(description="origin of the list; popular: nothing is known of the user")]
    intent: Annotated[int | None, Meta(description="id of the intent nearest to the history")] = None
    because: Annotated[list[str], Meta(description="the recent items that drove the list, strongest first")] = []
    step: Annotated[int, Meta(description="engine step that made the list, or the checkpoint that it was made with")]
    model_step: Annotated[int, Meta(description="optimizer steps of the weights in use")]
    as_of: Annotated[AsOf | None, Meta(description="the newest input event in a published list")] = None


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """All that the topics say about a user, newest first."""

    user: str
    history: list[HistoryEvent]
    intent: Annotated[Intent | None, Meta(description="the intent of the newest list, if the catalog has it")]
    shifts: list[IntentShift]
    recommendations: Recommendations | None
    erased: Annotated[ErasureReceipt | None, Meta(description="receipt of the last erasure, if there was one")]


class ErasureAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """The request to forget a user is durable; the worker publishes a receipt when the user is forgotten."""

    user: str
    receipt: Annotated[str, Meta(description="where the receipt will be")]


class IntentCatalog(msgspec.Struct, frozen=True, kw_only=True):
    """All intents, largest share first."""

    intents: list[Intent]


class IntentSample(msgspec.Struct, frozen=True, kw_only=True):
    """An intent after one step."""

    step: int
    share: float
    position: list[float]


class IntentPage(msgspec.Struct, frozen=True, kw_only=True):
    """One intent, its path over the newest steps, and the newest shifts to and from it."""

    intent: Intent
    trail: list[IntentSample]
    shifts: list[IntentShift]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Drift episodes, newest first."""

    episodes: list[Episode]


class DeadLetters(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters, newest first, and their number by reason since the topic began."""

    by_reason: dict[str, int]
    letters: list[DeadLetterView]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The workers' newest reports and how far the monitor has read."""

    state: Annotated[str, Meta(description="none, recovering, running, stopped, failed or gone")]
    problems: list[str]
    notes: Annotated[list[str], Meta(description="what the workers do of their own accord, and needs nobody")]
    workers: list[StreamMetrics]
    monitor_lag: dict[str, int]


class Healthy(msgspec.Struct, frozen=True, kw_only=True):
    """All is well."""

    status: str = "ok"


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """An error, RFC 9457; there may be further members."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


ANSWERS = (
    Appended,
    ItemList,
    SessionRequest,
    UserView,
    ErasureAccepted,
    IntentCatalog,
    IntentPage,
    Drift,
    DeadLetters,
    Status,
    Healthy,
    ProblemDetails,
    Recommendations,
    ErasureReceipt,
)
