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
BETS: Final = frozenset(get_args(Action)) - {"reseed", "rollback"}  # they may do harm, and can be taken back
FALLBACK: Final = "fallback"  # alarm of the fallback policy: no signal of the stream, always an episode of its own
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
    bin_events: Annotated[
        int, Meta(ge=16, le=100_000, description="events per bin, after which each signal gives a number; events")
    ] = 256
    warm_up: Annotated[int, Meta(ge=5, le=100_000, description="bins before the first alarm; bins")] = 40
    half_life: Annotated[
        float, Meta(ge=2, le=1e6, description="half-life of the level that a signal is compared with; bins")
    ] = 32.0
    reference: Annotated[float, Meta(ge=2, le=1e6, description="half-life of the reference shares; bins")] = 16.0
    share_window: Annotated[
        int, Meta(ge=1, le=1000, description="newest bins whose shares are compared, together; bins")
    ] = 6
    adwin_delta: Annotated[
        float,
        Meta(gt=0, lt=1, description="ADWIN: probability of a false alarm per check; lower detects later; probability"),
    ] = 1e-6
    allowance: Annotated[
        float, Meta(ge=0, le=10, description="Page-Hinkley: deviation that adds nothing to the sum; usual deviations")
    ] = 1.0
    threshold: Annotated[
        float, Meta(gt=0, le=1000, description="Page-Hinkley: sum that raises an alarm; usual deviations")
    ] = 8.0
    kswin_alpha: Annotated[
        float, Meta(gt=0, lt=0.01, description="KSWIN: probability of a false alarm per bin; probability")
    ] = 1e-7
    kswin_window: Annotated[int, Meta(ge=20, le=10_000, description="KSWIN: bins kept; bins")] = 80
    kswin_recent: Annotated[int, Meta(ge=5, le=5000, description="KSWIN: newest bins that are compared; bins")] = 20
    quiet_events: Annotated[
        int, Meta(ge=1, le=10**9, description="events without an alarm after which an episode closes; events")
    ] = 4000
    longest_events: Annotated[int, Meta(ge=1, le=10**9, description="longest episode; events")] = 50_000
    cooldown_events: Annotated[
        int, Meta(ge=0, le=10**9, description="wait of alarms after an episode before they open another; events")
    ] = 1000
    action_events: Annotated[
        int, Meta(ge=1, le=10**9, description="duration of an action from the opening of its episode; events")
    ] = 6000
    concept_drift_threshold: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="a concept drift leaves at most this share of the hits, or of the probability that the ranking "
            "gave to the item taken; fraction",
        ),
    ] = 0.625
    more_steps: Annotated[
        float, Meta(ge=1, le=100, description="action more_steps: factor of the learning steps; factor")
    ] = 5.0
    higher_rate: Annotated[
        float, Meta(gt=0, le=100, description="action higher_rate: factor of the network's learning rates; factor")
    ] = 2.0
    faster_decay: Annotated[
        float,
        Meta(gt=0, le=1, description="action faster_decay: factor of the half-lives of popularity; factor"),
    ] = 0.25
    fade_followers: Annotated[
        float,
        Meta(gt=0, le=1, description="action fade_followers: factor of the counts of neighbors, once; factor"),
    ] = 0.01
    more_followers: Annotated[
        int,
        Meta(ge=1, le=50, description="action more_followers: newest items that count an event as follower; count"),
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
            if name not in KINDS and name not in SIGNAL_NAMES and name != FALLBACK:
                raise ValueError(
                    f"actions.{name}: neither a kind of drift ({', '.join(KINDS)}) "
                    f"nor a signal ({', '.join(sorted(SIGNAL_NAMES))}), nor {FALLBACK}"
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
    """When the model snapshot serves, and when the learner serves again."""

    enabled: Annotated[
        bool,
        Meta(
            description="compare the learner with its model snapshot, and let that serve when it ranks better; switch"
        ),
    ] = True
    check_every: Annotated[int, Meta(ge=1, le=100_000, description="steps between comparisons; steps")] = 16
    sample: Annotated[
        int, Meta(ge=8, le=100_000, description="most events per comparison, of the first mix.chunk ones; events")
    ] = 64
    half_life: Annotated[float, Meta(ge=16, le=1e9, description="half-life of the comparison; events compared")] = (
        2000.0
    )
    least: Annotated[int, Meta(ge=8, le=10**9, description="fewest compared events for a decision; events")] = 256
    worse: Annotated[
        float, Meta(gt=0, le=100, description="deficit with which the learner loses; standard errors of the difference")
    ] = 4.0
    better: Annotated[
        float,
        Meta(
            ge=-100, le=100, description="lead with which the learner serves again; standard errors of the difference"
        ),
    ] = 0.0
    patience: Annotated[int, Meta(ge=1, le=10_000, description="comparisons in a row that must agree; count")] = 4
    snapshot_every: Annotated[
        int, Meta(ge=1, le=10**9, description="steps between model snapshots while the learner wins; steps")
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


__all__ = [
    "Action",
    "DetectorName",
    "DriftConfig",
    "FallbackConfig",
    "FALLBACK",
    "KINDS",
    "Kind",
    "ONCE",
    "SIGNAL_NAMES",
]
