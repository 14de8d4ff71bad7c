"""Everything that is published, as msgspec structs: one struct per topic, each with a schema version.

A reader must ignore fields that it does not know. A field is never given another meaning: that takes a new `schema`,
which is each struct's tag, so that it is always written and a decoder refuses a version that it does not know.

A default is left out of the JSON, which msgspec tells by identity. So it is None, a bool, an empty text or collection,
or a small integer: a text that came out of a checkpoint is another object than the default, and the replay of a step
would not make the same bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Source = Literal["model", "intent", "popular"]
Cause = Literal["user", "model"]


class AsOf(msgspec.Struct, frozen=True, kw_only=True):
    """The newest input event that a message takes into account."""

    partition: int
    offset: int
    ts: Annotated[int, Meta(description="event time, epoch milliseconds")]


class Recommended(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):  # 20 in every list
    """One place of a list."""

    item: str
    score: Annotated[float, Meta(description="log-probability-like score; comparable within one list only")]
    because: Annotated[list[str], Meta(description="the items of the history that drove this one")] = []


class Recommendations(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="schema", tag=1):
    """The newest list of a user. Topic `recommendations`, key user, compacted; tombstone: the user was erased."""

    user: str
    items: list[Recommended]
    intent: Annotated[int | None, Meta(description="id of the nearest intent; null for a cold user")] = None
    source: Annotated[Source, Meta(description="origin of the list: the model, items of the intent, or popular items")]
    because: Annotated[list[str], Meta(description="the recent items that drove the list, strongest first")] = []
    step: Annotated[int, Meta(description="engine step that made this list")]
    model_step: Annotated[int, Meta(description="optimizer steps of the weights in use")]
    serving: Annotated[
        Literal["snapshot"] | None,
        Meta(
            description="snapshot: an earlier model made the list, because the present one ranks worse; null: this one"
        ),
    ] = None
    as_of: AsOf


class IntentShift(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="schema", tag=1):
    """A user shifted to another intent. Topic `intent-shifts`, key user."""

    user: str
    from_intent: Annotated[int | None, Meta(description="null: the user's first intent")] = msgspec.field(name="from")
    to_intent: int = msgspec.field(name="to")
    cause: Annotated[Cause, Meta(description="user: the behavior changed; model: the centers or the encoder moved")]
    confidence: Annotated[float, Meta(ge=0, le=1, description="calibrated probability that the new intent holds")]
    evidence: Annotated[list[str], Meta(description="the items that moved the user, strongest first")] = []
    held_for: Annotated[int | None, Meta(description="events for which the previous intent was held")] = None
    step: int
    as_of: AsOf


class Intent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="schema", tag=1):
    """One intent. Topic `intent-catalog`, key intent id, compacted; tombstone: retired or merged, may come back."""

    intent: Annotated[int, Meta(description="never used again for another intent")]
    name: str = ""
    top_items: list[str]
    share: Annotated[float, Meta(ge=0, le=1, description="share of the recently active users")]
    separation: Annotated[float, Meta(description="distance to the nearest other center, 0 to 2")]
    speed: Annotated[float, Meta(ge=0, description="distance moved per 1,000 events")]
    position: Annotated[list[float], Meta(description="place on a map that turns slowly, two numbers from -1 to 1")]
    born_at: Annotated[int, Meta(description="events accepted before its birth; 0: from the start")]
    step: int
    ts: int


class DriftAlert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="schema", tag=1):
    """An episode opened or closed. Topic `drift-alerts`, key: the signal that opened it."""

    episode: Annotated[int, Meta(description="number of the episode, from 1")]
    state: Literal["opened", "closed"]
    kind: Annotated[str, Meta(description="kind of drift, or 'unknown'")]
    signals: Annotated[list[str], Meta(description="signals that raised an alarm, in that order")]
    detector: str
    before: Annotated[float, Meta(description="level of the first signal before the change")]
    after: Annotated[float, Meta(description="level of the first signal after the change")]
    since_event: Annotated[
        int, Meta(description="events accepted before the change, as `counters` in stream-metrics count them")
    ]
    since_ts: int
    at_event: Annotated[int, Meta(description="events accepted before this alert")]
    action: Annotated[str, Meta(description="actions: 'none', 'more_steps', 'reseed', ...")]
    step: int
    ts: int
    action_until: Annotated[
        int | None,
        Meta(description="events accepted when the action ends or ended; missing for actions that do not last"),
    ] = None
    taken_back: Annotated[
        bool, Meta(description="the actions did not pay: what they changed about the model was undone")
    ] = False


class StreamMetrics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="schema", tag=1):
    """Figures of a worker. Topic `stream-metrics`, key worker id, every few seconds; counters since the first start."""

    worker: str
    ts: Annotated[int, Meta(description="wall clock, epoch milliseconds")]
    state: Literal["recovering", "running", "stopped"]
    step: int
    model_step: int
    counters: Annotated[
        dict[str, int], Meta(description="events, users, dead_letters, duplicates, late, recommendations, ...")
    ]
    gauges: Annotated[
        dict[str, float],
        Meta(description="events_per_second, lag, freshness_p50_ms, freshness_p99_ms, loss, served_hr@10, ..."),
    ]
    lag: Annotated[dict[str, int], Meta(description="records not yet read, per input partition")] = {}
    event_ts: Annotated[
        int,
        Meta(
            description="median time of the newest 512 events, each user once; epoch milliseconds, 0 before the first"
        ),
    ] = 0


class ErasureReceipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="schema", tag=1):
    """A user was forgotten. Topic `erasures`, key user."""

    user: str
    erased: Annotated[list[str], Meta(description="data deleted by this step")]
    remains: Annotated[dict[str, str], Meta(description="data that stays for a while, and until when")]
    step: int
    as_of: AsOf


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="schema", tag=1):
    """The decisions of one step. Topic `intentstream-journal`, key worker id. The state is a function of them."""

    worker: str
    step: int
    ranges: Annotated[list[tuple[int, int, int]], Meta(description="input ranges: partition, start, stop")]
    learn_steps: int
    checkpoint: Annotated[bool, Meta(description="a checkpoint is due after this step")] = False
    messages: Annotated[int, Meta(description="messages of this step without the journal entry")] = 0
    checksum: Annotated[int, Meta(description="CRC-32C over the step's messages")] = 0
    notes: Annotated[dict[str, str], Meta(description="other decisions that a replay must repeat")] = {}
    records: Annotated[int, Meta(description="records in the ranges; -1 in entries of early versions")] = -1


MESSAGE_TYPES: tuple[type[msgspec.Struct], ...] = (
    Recommendations,
    IntentShift,
    Intent,
    DriftAlert,
    StreamMetrics,
    ErasureReceipt,
    JournalEntry,
)
