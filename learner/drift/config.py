"""Configuration of drift detection and of the fallback, and the names of signals, kinds of drift and actions."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta

DetectorName = Literal["adwin", "page_hinkley", "kswin"]
Kind = Literal[
    "shares", "new_intent", "lost_intent", "popularity", "concept_drift", "learner", "traffic", "quality", "unknown"
]
Action = Literal[
    "more_steps",
    "higher_rate",
    "fresh_replay",
    "faster_decay",
    "fade_followers",
    "more_followers",
    "reseed",
    "rollback",
]
ONCE: Final = ("fade_followers", "reseed", "rollback")  # actions that happen once; the others last
GATE: Final = "gate"  # alarm of `learner.gate`: no signal of the stream, always an episode of its own
KINDS: Final[tuple[str, ...]] = get_args(Kind)
SIGNAL_NAMES: Final = (
    "served_hits",
    "loss",
    "distance",
    "intent_shares",
    "popularity",
    "center_speed",
    "new_items",
    "arrival_rate",
    "dead_letters",
    "refusals",
)  # each one a class of `learner.drift.signals`


class DriftConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Detectors, episodes and actions. Defaults measured by `benchmarks/drift.py`; see docs/drift.md."""

    signals: Annotated[
        dict[str, DetectorName],
        Meta(description="detector of each signal watched; a signal left out is not watched"),
    ] = msgspec.field(default_factory=lambda: dict.fromkeys(SIGNAL_NAMES, "page_hinkley"))
    bin_events: Annotated[int, Meta(ge=16, le=100_000, description="events from one look to the next; events")] = 256
    warm_up: Annotated[int, Meta(ge=5, le=100_000, description="looks before the first judgement; looks")] = 40
    half_life: Annotated[
        float, Meta(ge=2, le=1e6, description="of the level with which a signal is compared; looks")
    ] = 32.0
    reference: Annotated[
        float, Meta(ge=2, le=1e6, description="half-life of the shares with which shares are compared; looks")
    ] = 16.0
    share_window: Annotated[
        int, Meta(ge=1, le=1000, description="newest looks whose shares, together, are compared; looks")
    ] = 6
    adwin_delta: Annotated[
        float, Meta(gt=0, lt=1, description="ADWIN: chance of a false cut per check; lower is later; probability")
    ] = 1e-6
    allowance: Annotated[
        float, Meta(ge=0, le=10, description="Page-Hinkley: what is not suspicious yet; usual deviations")
    ] = 1.0
    threshold: Annotated[
        float, Meta(gt=0, le=1000, description="Page-Hinkley: suspicion that is an alarm; usual deviations, summed")
    ] = 8.0
    kswin_alpha: Annotated[
        float, Meta(gt=0, lt=0.01, description="KSWIN: chance of a false alarm per look; probability")
    ] = 1e-7
    kswin_window: Annotated[int, Meta(ge=20, le=10_000, description="KSWIN: looks kept; looks")] = 80
    kswin_recent: Annotated[int, Meta(ge=5, le=5000, description="KSWIN: newest looks that are compared; looks")] = 20
    quiet_events: Annotated[
        int, Meta(ge=1, le=10**9, description="an episode closes after so many events without an alarm; events")
    ] = 4000
    longest_events: Annotated[
        int, Meta(ge=1, le=10**9, description="an episode closes after so many events in any case; events")
    ] = 50_000
    cooldown_events: Annotated[
        int, Meta(ge=0, le=10**9, description="after it closed, alarms wait so long before they open another; events")
    ] = 1000
    action_events: Annotated[
        int, Meta(ge=1, le=10**9, description="how long an action lasts from the opening on; events")
    ] = 6000
    concept_drift_threshold: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="a change of meaning leaves at most this share of the hits, or of the chance that the ranking "
            "gave to what was taken; fraction",
        ),
    ] = 0.625
    more_steps: Annotated[
        float, Meta(ge=1, le=100, description="action more_steps: learning steps are multiplied by it; factor")
    ] = 5.0
    higher_rate: Annotated[
        float, Meta(gt=0, le=100, description="action higher_rate: learning rates are multiplied by it; factor")
    ] = 2.0
    faster_decay: Annotated[
        float,
        Meta(gt=0, le=1, description="action faster_decay: half-lives of the popularity are multiplied by it; factor"),
    ] = 0.25
    fade_followers: Annotated[
        float,
        Meta(gt=0, le=1, description="action fade_followers: counts of neighbours are multiplied by it, once; factor"),
    ] = 0.01
    more_followers: Annotated[
        int,
        Meta(ge=1, le=50, description="action more_followers: newest items that an event is a follower of; count"),
    ] = 6
    actions: Annotated[
        dict[str, list[Action]],
        Meta(
            description="what is done in an episode, by kind of drift or by the signal that opened it, which goes first"
        ),
    ] = msgspec.field(
        default_factory=lambda: {
            "concept_drift": ["more_steps", "fresh_replay", "higher_rate", "fade_followers", "more_followers"],
            "learner": ["rollback"],
            "shares": [],
            "new_intent": [],
            "lost_intent": [],
            "popularity": [],
            "traffic": [],
            "quality": [],
            "unknown": [],
        }
    )

    def __post_init__(self) -> None:
        for name in self.signals:
            if name not in SIGNAL_NAMES:
                raise ValueError(
                    f"signals.{name}: there is no such signal; there are {', '.join(sorted(SIGNAL_NAMES))}"
                )
        for name in self.actions:
            if name not in KINDS and name not in SIGNAL_NAMES and name != GATE:
                raise ValueError(
                    f"actions.{name}: neither a kind of drift ({', '.join(KINDS)}) "
                    f"nor a signal ({', '.join(sorted(SIGNAL_NAMES))}), nor {GATE}"
                )
            if name in SIGNAL_NAMES and name not in KINDS and name not in self.signals:
                raise ValueError(f"actions.{name}: the signal is not watched, it would never act; add it to signals")
            for action in self.actions[name]:
                if self.actions[name].count(action) > 1:
                    raise ValueError(f"actions.{name}: {action} is there more than once, which does no more than once")
        if self.kswin_recent * 2 > self.kswin_window:
            raise ValueError(
                f"kswin_recent = {self.kswin_recent}: must be at most half of kswin_window = {self.kswin_window}"
            )
        if self.longest_events < self.quiet_events:
            raise ValueError(
                f"longest_events = {self.longest_events}: must not be below quiet_events = {self.quiet_events}"
            )


class FallbackConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the snapshot takes over, and when the learner comes back."""

    enabled: Annotated[bool, Meta(description="compare the learner with its snapshot and stand in for it; switch")] = (
        True
    )
    check_every: Annotated[int, Meta(ge=1, le=100_000, description="steps from one comparison to the next; steps")] = 16
    sample: Annotated[
        int, Meta(ge=8, le=100_000, description="most events compared each time, of the first mix.chunk ones; events")
    ] = 64
    half_life: Annotated[float, Meta(ge=16, le=1e9, description="memory of the comparison; events compared")] = 2000.0
    least: Annotated[int, Meta(ge=8, le=10**9, description="events compared before anything is decided; events")] = 256
    worse: Annotated[
        float, Meta(gt=0, le=100, description="the learner loses below minus this; standard errors of the difference")
    ] = 4.0
    better: Annotated[
        float,
        Meta(ge=-100, le=100, description="the learner comes back from this on; standard errors of the difference"),
    ] = 0.0
    patience: Annotated[
        int, Meta(ge=1, le=10_000, description="comparisons in a row that must agree before a change; count")
    ] = 4
    snapshot_every: Annotated[
        int, Meta(ge=1, le=10**9, description="steps from one snapshot to the next, while the learner wins; steps")
    ] = 100

    def __post_init__(self) -> None:
        if self.snapshot_every < self.check_every * self.patience:
            raise ValueError(
                f"snapshot_every = {self.snapshot_every}: must not be below check_every * patience = "
                f"{self.check_every * self.patience}: a snapshot would be replaced before it was compared"
            )
        if self.least > self.half_life:
            raise ValueError(
                f"least = {self.least}: must not be above half_life = {self.half_life}: it would never be reached"
            )
        if self.better < -self.worse:
            raise ValueError(f"better = {self.better}: must not be below -worse = {-self.worse}: it would never settle")


__all__ = ["Action", "DetectorName", "DriftConfig", "FallbackConfig", "GATE", "KINDS", "Kind", "ONCE", "SIGNAL_NAMES"]
