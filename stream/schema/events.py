"""Behavior events: their fields, their limits, and the reasons for which a record is refused.

A record is a JSON object `{"user", "item", "ts", "action"?, "value"?}`. `stream.schema.decoder` turns records into
events and rejections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_ID_BYTES: Final = 256
MAX_RECORD_BYTES: Final = 64 * 1024
MIN_TS: Final = 631_152_000_000  # 1990-01-01, epoch milliseconds
MAX_TS: Final = 4_102_444_800_000  # 2100-01-01
ERASE: Final = "erase"

Reason = Literal[
    "empty",  # no value at all
    "too_large",  # more than MAX_RECORD_BYTES
    "not_utf8",
    "not_json",
    "not_framed",  # no byte 0 and schema id in front, on a topic of another format than JSON
    "unknown_schema",  # the registry has no schema of this id, or one that cannot be read
    "not_avro",
    "not_protobuf",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "bad_id",
    "bad_ts",
    "unknown_action",
    "key_mismatch",  # the record's key is not the user
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


Identifier = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)] | int


def is_visible(text: str) -> bool:
    r"""Whether a text can be an id by its characters: a visible one among them, and no NUL.

    >>> [is_visible(text) for text in ["lamp", "a b", "a\nb", " ", "\x1f", "\u200b", "a\0"]]
    [True, True, True, False, False, False, False]
    """
    if text.isprintable():
        return not text.isspace()
    return "\0" not in text and any(one.isprintable() and not one.isspace() for one in text)


class BehaviorEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing a user did. Topic `behavior-events`, key user; `action` "erase" asks to forget the user."""

    user: Annotated[
        Identifier,
        Meta(description="1 to 256 bytes of UTF-8, visible, without NUL; an integer counts as its decimal text"),
    ]
    item: Annotated[Identifier | UnsetType, Meta(description="like user; needed unless the action is erase")] = UNSET
    ts: Annotated[
        Annotated[int, Meta(ge=MIN_TS, lt=MAX_TS)] | UnsetType,
        Meta(description="event time, epoch milliseconds from 1990 to 2100; needed unless the action is erase"),
    ] = UNSET
    action: Annotated[str | None, Meta(description="a name from the configuration; none: the first of them")] = None
    value: Annotated[
        float | None, Meta(description="finite, for example a rating or a price; anything else is dropped and counted")
    ] = None


class ActionsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The actions of users, their weights, and how far events may be ahead."""

    weights_by_name: Annotated[
        dict[str, float],
        Meta(
            min_length=1,
            max_length=254,
            description="weight of each action; the first is the default, a negative one a dislike",
        ),
    ] = msgspec.field(
        name="weights",
        default_factory=lambda: {"view": 1.0, "click": 1.0, "cart": 2.0, "purchase": 3.0, "rate": 1.0, "dislike": -1.0},
    )
    other: Annotated[
        Literal["dead_letter", "default"],
        Meta(description="an event with an unknown action: a dead letter, or the default action"),
    ] = "dead_letter"
    max_ahead_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=MAX_TS,
            description="an event whose time is further ahead of its record's arrival is a dead letter; ms",
        ),
    ] = 24 * 3600 * 1000

    def __post_init__(self) -> None:
        for name, weight in self.weights_by_name.items():
            if not name or name == ERASE:
                raise ValueError(f"weights: {name!r} cannot be the name of a weighted action")
            if not (math.isfinite(weight) and weight != 0 and abs(weight) <= 100):
                raise ValueError(f"weights.{name} = {weight}: must be finite, not 0, within -100 to 100")
        if next(iter(self.weights_by_name.values())) < 0:
            raise ValueError("weights: the first action is the default one, its weight must be above 0")

    def names(self) -> list[str]:
        """Names by action code."""
        return list(self.weights_by_name)

    def codes(self) -> dict[str, int]:
        """Action codes by name."""
        return {name: code for code, name in enumerate(self.weights_by_name)}

    def weights(self) -> list[float]:
        """Weights by action code."""
        return list(self.weights_by_name.values())


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why record `index` of a batch was refused."""

    index: int
    reason: Reason
    field: str
    value: str
    rule: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """A record asks to forget `user`."""

    index: int
    """place of the record in its batch"""
    user: bytes
    ts: int
    """epoch milliseconds"""
    events_before: int
    """events of the batch that came before the request"""
    partition: int = 0
    offset: int = 0
    arrived_ms: int = 0
    """when the record arrived, epoch milliseconds"""


def encode_event(event: BehaviorEvent) -> bytes:
    """Write an event as it goes onto the log."""
    return _encode(event)


_encode = msgspec.json.Encoder().encode


__all__ = [
    "ActionsConfig",
    "BehaviorEvent",
    "ERASE",
    "Erasure",
    "MAX_ID_BYTES",
    "MAX_RECORD_BYTES",
    "MAX_TS",
    "MIN_TS",
    "REASONS",
    "Reason",
    "Rejection",
    "encode_event",
    "is_visible",
]
