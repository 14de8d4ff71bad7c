"""Detectors on all signals, alarms grouped into episodes, and what is done about one.

All is a function of the steps seen and of the configuration; the state is plain data.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from learner.digest import Hash
from learner.drift.config import BETS, FALLBACK, ONCE, Action, DriftConfig
from learner.drift.detectors import restored
from learner.drift.signal_monitor import SignalMonitor
from learner.drift.signals import SIGNALS, Observed
from learner.errors import LearnerStateError

FORMAT: Final = 6  # 6: the speed of centers is per learning step
_LASTING: Final = frozenset(get_args(Action)) - set(ONCE)


class ActiveActions(NamedTuple):
    """What the open episode's actions ask of the step that comes; the neutral ones when there is none."""

    steps: float = 1.0
    """factor on the learning steps"""
    rate: float = 1.0
    """factor on the learning rates"""
    newest: int = 0
    """only so many of the newest pairs are replayed, 0 = as ever"""
    half_lives: float = 1.0
    """factor on the half-lives of the popularity"""
    followers: float = 1.0
    """once: factor on what is known of the neighbors of items"""
    update_window: int = 0
    """an event is a follower of so many of the newest items, 0 = as ever"""
    reseed: bool = False
    """once: dead and crowded centers are to be placed anew"""
    rollback: bool = False
    """once: the learner is to go back to the weights that stand in for it"""


class EpisodeChange(NamedTuple):
    """An episode opened or closed."""

    episode: int
    """number, from 1"""
    state: Literal["opened", "closed"]
    kind: str
    signals: tuple[str, ...]
    """first alarm first"""
    detector: str
    """of the first"""
    before: float
    after: float
    """level of the first signal"""
    since_event: int
    since_ts: int
    """where the change is put"""
    at_event: int
    ts: int
    """where this was found"""
    actions: tuple[str, ...]
    """what is done, or was"""
    until: int | None
    """event at which the actions that last end, or ended; None where none lasts"""
    taken_back: bool
    """the actions did harm, or no good: what they changed was undone"""


class _Alarm(msgspec.Struct):
    """One signal that changed, as it was when this was found."""

    signal: str
    detector: str
    score: float
    before: float
    after: float
    since_event: int
    since_ts: int
    retained: float


class _Episode(msgspec.Struct):
    """The episode that is open."""

    number: int
    kind: str
    signals: list[str]
    first: _Alarm
    opened_at: int
    last_alarm: int
    actions: list[str]
    retained: float
    """least share of what could be foretold that an alarm says is left"""
    taken_back_at: int | None = None
    """where the actions ended early because they did harm"""


class DriftMonitor:
    """All signals of a stream, their detectors, and the episode that may be open.

    Parameters
    ----------
    config
        What is watched, when it alarms, what is done.
    seed
        Of KSWIN's samples.

    Examples
    --------
    >>> monitor = DriftMonitor(DriftConfig())
    >>> monitor.effects().steps
    1.0
    """

    def __init__(self, config: DriftConfig, seed: int = 0) -> None:
        self.config = config
        self._monitors = {
            name: SignalMonitor(SIGNALS[name](config), detector, config, seed + place)
            for place, (name, detector) in enumerate(sorted(config.signals.items()))
        }
        self._filled = 0  # records in the bin
        self._ends: deque[tuple[int, int]] = deque(maxlen=512)  # event number and time at the end of the newest bins
        self._episode: _Episode | None = None
        self._episodes = 0
        self._closed_at = -(10**18)
        self._waiting: list[_Alarm] = []  # found in the cooldown
        self._once: list[str] = []  # actions that happen once and have not happened yet
        self._event = 0

    @property
    def episodes(self) -> int:
        """Episodes opened so far."""
        return self._episodes

    @property
    def is_open(self) -> bool:
        """Whether an episode is open."""
        return self._episode is not None

    def step(
        self, seen: Observed, event_number: int, *, hold: bool = False, can_roll_back: bool = False
    ) -> list[EpisodeChange]:
        """Add a step that ends before event `event_number`; return the episodes that opened or closed.

        With `hold` the open episode does not close; `can_roll_back` says that there is something to roll back to.
        """
        self._event = event_number
        for monitor in self._monitors.values():
            monitor.signal.add(seen)
        self._filled += seen.records  # not the good ones alone: nothing but bad records is a drift too
        if self._filled < self.config.bin_events:
            return []
        self._filled = 0
        self._ends.append((event_number, seen.ts))
        alarms = []
        for name, monitor in self._monitors.items():
            if monitor.end_bin(seen.ts):
                alarms += [self._alarm(name)] if monitor.is_alarm else []
                monitor.accept()
        return self._go_on(alarms, event_number, seen.ts, hold, can_roll_back)

    def report_alarm(
        self, signal: str, before: float, after: float, event_number: int, ts: int, *, can_roll_back: bool = False
    ) -> list[EpisodeChange]:
        """Take an alarm from elsewhere, which is always an episode of its own: one that is open closes first.

        Alarms that wait in a cooldown join it.
        """
        changes = [] if self._episode is None else [self._close(self._episode, event_number, ts)]
        alarm = _Alarm(signal, signal, 0.0, before, after, event_number, ts, retained=1.0)
        waiting, self._waiting = self._waiting, []
        return [*changes, self._open(alarm, waiting, event_number, ts, can_roll_back)]

    def _alarm(self, name: str) -> _Alarm:
        monitor = self._monitors[name]
        since_event, since_ts = self._ends[-1 - min(monitor.detector.since, len(self._ends) - 1)]
        before, after = monitor.before, monitor.changed_to
        retained = monitor.signal.retained(before, monitor.newly)
        return _Alarm(name, monitor.detector.name, monitor.score, before, after, since_event, since_ts, retained)

    def _go_on(
        self, alarms: list[_Alarm], event_number: int, ts: int, hold: bool, can_roll_back: bool
    ) -> list[EpisodeChange]:
        changes = []
        if self._episode is not None:
            quiet = event_number - self._episode.last_alarm >= self.config.quiet_events
            if not hold and self._ends_now(self._episode, quiet, bool(alarms), event_number):
                changes.append(self._close(self._episode, event_number, ts))
            elif alarms:
                self._join(self._episode, alarms, event_number)
                alarms = []
        # an alarm in the cooldown is not lost: what it found opens an episode when the cooldown is over
        self._waiting += alarms
        if self._episode is None and self._waiting and event_number - self._closed_at >= self.config.cooldown_events:
            first = max(self._waiting, key=lambda alarm: abs(alarm.score))
            changes.append(self._open(first, self._waiting, event_number, ts, can_roll_back))
            self._waiting = []
        return changes

    def _ends_now(self, episode: _Episode, quiet: bool, alarmed: bool, event_number: int) -> bool:
        acting = bool(episode.actions) and self._acts(episode, event_number)
        if event_number - episode.opened_at >= self.config.longest_events:
            return True
        # an alarm after so long a quiet is another drift, though the actions against the last one still go on
        return quiet and (alarmed or not acting)

    def _acts(self, episode: _Episode, event_number: int) -> bool:
        return episode.taken_back_at is None and event_number - episode.opened_at < self.config.action_events

    def on_trial(self, event_number: int) -> bool:
        """Whether at this event an open episode acts in a way that may do harm, and that can be taken back."""
        episode = self._episode
        return episode is not None and bool(set(episode.actions) & BETS) and self._acts(episode, event_number)

    def take_back(self, event_number: int) -> None:
        """End the open episode's actions: they did harm, or no good."""
        if self._episode is not None:
            self._episode.taken_back_at = event_number
            self._once = []

    def _join(self, episode: _Episode, alarms: list[_Alarm], event_number: int) -> None:
        episode.last_alarm = event_number
        episode.signals += [one.signal for one in alarms if one.signal not in episode.signals]
        episode.retained = min([episode.retained, *(alarm.retained for alarm in alarms)])
        episode.kind = self._kind(episode.signals, episode.retained)

    def _open(
        self, first: _Alarm, alarms: list[_Alarm], event_number: int, ts: int, can_roll_back: bool
    ) -> EpisodeChange:
        names = list(dict.fromkeys([first.signal, *(alarm.signal for alarm in alarms)]))
        self._episodes += 1
        retained = min(alarm.retained for alarm in [first, *alarms])
        kind = self._kind(names, retained)
        actions: list[str] = [*self.config.actions.get(first.signal, self.config.actions.get(kind, []))]
        if not can_roll_back:
            actions = [action for action in actions if action != "rollback"]
        if first.signal == FALLBACK:
            actions = ["snapshot", *actions]  # done by whoever told of it
        self._episode = _Episode(
            self._episodes,
            kind,
            names,
            first,
            event_number,
            last_alarm=event_number,
            actions=actions,
            retained=retained,
        )
        self._once = [action for action in actions if action in ONCE]
        return self._change("opened", self._episode, event_number, ts)

    def _close(self, episode: _Episode, event_number: int, ts: int) -> EpisodeChange:
        self._episode, self._once = None, []
        self._closed_at = event_number
        for monitor in self._monitors.values():
            # shares that the change moved too little or too slowly to alarm are normal too
            monitor.signal.begin_anew(self.config.share_window)
        return self._change("closed", episode, event_number, ts)

    def _change(
        self, state: Literal["opened", "closed"], episode: _Episode, event_number: int, ts: int
    ) -> EpisodeChange:
        first = episode.first
        monitor = self._monitors.get(first.signal)
        return EpisodeChange(
            episode.number,
            state,
            episode.kind,
            tuple(episode.signals),
            first.detector,
            first.before,
            first.after if state == "opened" or monitor is None else monitor.level,
            first.since_event,
            first.since_ts,
            event_number,
            ts,
            tuple(episode.actions) or ("none",),
            self._until(episode, event_number if state == "closed" else None),
            episode.taken_back_at is not None,
        )

    def _until(self, episode: _Episode, closed_at: int | None) -> int | None:
        if not any(action in _LASTING for action in episode.actions):
            return None
        end = episode.opened_at + self.config.action_events
        end = end if episode.taken_back_at is None else min(end, episode.taken_back_at)
        return end if closed_at is None else min(end, closed_at)

    def _kind(self, alarms: Sequence[str], retained: float) -> str:
        """What kind of drift the alarms tell of, where they tell; `retained` as in `_Episode`."""
        found = set(alarms)
        if found & {FALLBACK, "refusals"}:
            return "learner"
        if "new_items" in found:
            return "new_intent"
        if retained <= self.config.concept_drift_threshold:
            return "concept_drift"  # what is taken may change as well: that alone does not make the lists so much worse
        if "intent_shares" in found:
            return "shares"  # also where what is taken changes with them
        if "popularity" in found:
            return "popularity"
        return SIGNALS[alarms[0]].kind

    def effects(self) -> ActiveActions:
        """What the open episode's actions ask for now; asking changes nothing, `acted` ends the single ones."""
        episode, config = self._episode, self.config
        if episode is None or not self._acts(episode, self._event):
            return ActiveActions()
        asked = episode.actions
        return ActiveActions(
            steps=config.more_steps if "more_steps" in asked else 1.0,
            rate=config.higher_rate if "higher_rate" in asked else 1.0,
            newest=self._event - episode.first.since_event if "fresh_replay" in asked else 0,
            half_lives=config.faster_decay if "faster_decay" in asked else 1.0,
            followers=config.fade_followers if "fade_followers" in self._once else 1.0,
            update_window=config.more_followers if "more_followers" in asked else 0,
            reseed="reseed" in self._once,
            rollback="rollback" in self._once,
        )

    def acted(self) -> None:
        """Forget the actions that happen once: they have happened."""
        self._once = []

    def scores(self) -> dict[str, float]:
        """Deviations of each signal in the newest bin."""
        return {name: monitor.score for name, monitor in self._monitors.items()}

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Everything that the next step depends on, JSON-able, exact."""
        return {
            "format": FORMAT,
            "watches": {name: monitor.to_state() for name, monitor in self._monitors.items()},
            "detectors": {name: monitor.detector.name for name, monitor in self._monitors.items()},
            "filled": self._filled,
            "ends": [list(end) for end in self._ends],
            "episode": None if self._episode is None else msgspec.to_builtins(self._episode),
            "episodes": self._episodes,
            "closed_at": self._closed_at,
            "waiting": msgspec.to_builtins(self._waiting),
            "once": self._once,
            "event": self._event,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave; a signal added or given another detector since then begins anew.

        Raises
        ------
        LearnerStateError
            Another format, or numbers that do not fit.
        """
        if state.get("format") != FORMAT:
            raise LearnerStateError(f"drift: state of format {state.get('format')!r}, expected {FORMAT}")
        restored(self._load, state, "drift")

    def _load(self, state: Mapping[str, Any]) -> None:
        for name, monitor in self._monitors.items():
            if state["detectors"].get(name) == monitor.detector.name:
                restored(monitor.load_state, state["watches"][name], f"drift signal {name}")
        self._filled = state["filled"]
        self._ends = deque(((event, ts) for event, ts in state["ends"]), maxlen=self._ends.maxlen)
        episode = state["episode"]
        self._episode = None if episode is None else msgspec.convert(episode, _Episode)
        self._episodes, self._closed_at = state["episodes"], state["closed_at"]
        self._waiting = msgspec.convert(state["waiting"], list[_Alarm])
        self._once, self._event = list(state["once"]), state["event"]

    def update_digest(self, digest: Hash) -> None:
        """Add the state to a hash."""
        digest.update(json.dumps(self.to_state(), sort_keys=True).encode())


__all__ = ["ActiveActions", "DriftMonitor", "EpisodeChange"]
