"""Plausible topics for the monitor's tests: what a worker would publish, made by a seed."""

from __future__ import annotations

import math
import random

import msgspec

from stream.log.base import EventLog, Message, TopicSpec
from stream.schema import topics
from stream.schema.messages import (
    AsOf,
    DriftAlert,
    ErasureReceipt,
    Intent,
    IntentShift,
    Recommendations,
    Recommended,
    StreamMetrics,
)

NAMES = ["camping", "coffee", "running", "board games", "garden", "cycling", "baking", "photo", "aquarium", "knitting"]
encode = msgspec.json.Encoder().encode


def create(log: EventLog, partitions: int = 2) -> None:
    """Make the topics."""
    log.create_topics([TopicSpec(s.name, s.partitions, s.cleanup) for s in topics.topic_specs(partitions)])


class Feed:
    """Steps of an invented worker; `step` returns the messages of one."""

    def __init__(self, seed: int = 1, *, start_ms: int, every_ms: int = 5000, users: int = 200) -> None:
        self.random = random.Random(seed)
        self.now_ms = start_ms
        self.every_ms = every_ms
        self.number = 0
        self.events = 0
        self.users = users
        self.dead = 0
        self.offset = 0
        self.intents = {i: (self.random.uniform(-0.8, 0.8), self.random.uniform(-0.8, 0.8)) for i in range(10)}

    def user(self) -> str:
        return f"user-{self.random.randrange(self.users)}"

    def item(self, intent: int) -> str:
        return f"{NAMES[intent % 10].replace(' ', '-')}-{self.random.randrange(40):02d}"

    def as_of(self) -> AsOf:
        return AsOf(partition=0, offset=self.offset, ts=self.now_ms)

    def step(self) -> list[Message]:
        """One report's time goes by."""
        self.now_ms += self.every_ms
        self.number += 25
        made: list[Message] = []
        for _ in range(self.random.randrange(20, 30)):
            made += self.event(self.user())
        made += [self.metrics(), *self.catalog()]
        if self.number % 75 == 0:
            made.append(self.shift(self.user()))
        if self.number % 200 == 0:
            made.append(self.letter())
        return made

    def event(self, user: str) -> list[Message]:
        """An event and the list that it leads to."""
        self.events += 60
        self.offset += 1
        intent = hash_of(user) % 10
        event = {"user": user, "item": self.item(intent), "ts": self.now_ms, "action": "view"}
        return [
            Message(topics.EVENTS, user.encode(), encode(event), self.now_ms),
            Message(topics.RECOMMENDATIONS, user.encode(), encode(self.ranking(user, intent)), self.now_ms),
        ]

    def ranking(self, user: str, intent: int) -> Recommendations:
        return Recommendations(
            user=user,
            items=[
                Recommended(
                    item=f"{NAMES[intent].replace(' ', '-')}-{n:02d}", score=round(-1.2 - 0.2 * n, 3), because=[]
                )
                for n in range(20)
            ],
            intent=intent,
            source="model",
            because=[self.item(intent), self.item(intent)],
            step=self.number,
            model_step=self.number * 2,
            as_of=self.as_of(),
        )

    def metrics(self, **gauges: float) -> Message:
        t = self.number / 25
        hit = 0.32 * (1 - math.exp(-t / 60)) - (0.12 * math.exp(-(((t - 200) / 18) ** 2)))
        hit += self.random.gauss(0, 0.004)
        figures = {
            "events_per_second": 300 + self.random.gauss(0, 6),
            "lag": float(self.random.randrange(60)),
            "freshness_p50_ms": 62 + self.random.gauss(0, 3),
            "freshness_p99_ms": 190 + self.random.gauss(0, 14),
            "loss": 4.2 - 1.3 * (1 - math.exp(-t / 80)),
            "served_hr@10": max(0.0, hit),
            "served_ndcg@10": max(0.0, hit * 0.61),
            "prequential_hr@10": max(0.0, hit * 0.93),
            "prequential_ndcg@10": max(0.0, hit * 0.55),
            "items": 412.0,
            "intents_active": 10.0,
            "intents_effective": 7.9,
            "step_ms": 41.0,
            **gauges,
        }
        counters = {
            "events": self.events,
            "users": self.users,
            "dead_letters": self.dead,
            "recommendations": self.events // 2,
            "shifts": self.number // 75,
            "learn_steps": self.number * 2,
        }
        report = StreamMetrics(
            worker="worker-0",
            ts=self.now_ms,
            state="running",
            step=self.number,
            model_step=self.number * 2,
            counters=counters,
            gauges=figures,
            lag={"0": int(figures["lag"]) // 2, "1": int(figures["lag"]) - int(figures["lag"]) // 2},
            event_ts=self.now_ms,
        )
        return Message(topics.METRICS, b"worker-0", encode(report), self.now_ms)

    def catalog(self) -> list[Message]:
        t = self.number / 25
        weights = {i: 1.2 + math.sin(t / 40 + i) + (1.5 if i == 3 and t > 200 else 0) for i in self.intents}
        whole = sum(weights.values())
        made = []
        for i, (x, y) in self.intents.items():
            x = max(-1.0, min(1.0, x + 0.012 * math.cos(t / 9 + i) + self.random.gauss(0, 0.004)))
            y = max(-1.0, min(1.0, y + 0.012 * math.sin(t / 11 + 2 * i) + self.random.gauss(0, 0.004)))
            self.intents[i] = (x, y)
            intent = Intent(
                intent=i,
                name=NAMES[i],
                top_items=[f"{NAMES[i].replace(' ', '-')}-{n:02d}" for n in range(8)],
                share=weights[i] / whole,
                separation=0.7 + 0.05 * i,
                speed=0.02 + 0.004 * i,
                position=[x, y],
                born_at=1,
                step=self.number,
                ts=self.now_ms,
            )
            made.append(Message(topics.INTENT_CATALOG, str(i).encode(), encode(intent), self.now_ms))
        return made

    def shift(self, user: str, to: int | None = None) -> Message:
        target = self.random.randrange(10) if to is None else to
        shift = IntentShift(
            user=user,
            from_intent=(target + 3) % 10,
            to_intent=target,
            cause="user" if self.random.random() < 0.8 else "model",
            confidence=round(self.random.uniform(0.6, 0.99), 2),
            evidence=[self.item(target) for _ in range(3)],
            held_for=self.random.randrange(3, 40),
            step=self.number,
            as_of=self.as_of(),
        )
        return Message(topics.INTENT_SHIFTS, user.encode(), encode(shift), self.now_ms)

    def alert(self, episode: int, state: str, kind: str = "popularity", back_events: int = 4000) -> Message:
        alert = DriftAlert(
            episode=episode,
            state=state,  # type: ignore[arg-type]  # a Literal on the wire, a str here
            kind=kind,
            signals=["served_hr", "intent_shares"],
            detector="adwin",
            before=0.31,
            after=0.22,
            since_event=max(0, self.events - back_events),
            since_ts=self.now_ms - back_events,
            at_event=self.events,
            action="more_steps",
            step=self.number,
            ts=self.now_ms,
        )
        return Message(topics.DRIFT_ALERTS, b"served_hr", encode(alert), self.now_ms)

    def letter(self, reason: str = "bad_ts", value: bytes = b'{"user":"u","item":"i","ts":5}') -> Message:
        self.dead += 1
        headers = (
            ("reason", reason.encode()),
            ("field", b"ts"),
            ("value", b"5"),
            ("rule", b"epoch milliseconds from 1990 to 2100"),
            ("topic", topics.EVENTS.encode()),
            ("partition", b"0"),
            ("offset", str(self.offset).encode()),
        )
        return Message(topics.DEAD_LETTERS, b"u", value, self.now_ms, headers)

    def erase(self, user: str) -> Message:
        """A request to forget a user."""
        self.offset += 1
        return Message(topics.EVENTS, user.encode(), encode({"user": user, "action": "erase"}), self.now_ms)

    def receipt(self, user: str) -> list[Message]:
        receipt = ErasureReceipt(
            user=user,
            erased=["history", "recommendations"],
            remains={
                "weights": "fade as learning goes on",
                "checkpoints made before": "each is removed when `engine.keep_checkpoints` newer ones are finished",
                topics.EVENTS: "the user's events and the request: 7 days after they were written",
            },
            step=self.number,
            as_of=self.as_of(),
        )
        return [
            Message(topics.RECOMMENDATIONS, user.encode(), None, self.now_ms),
            Message(topics.ERASURES, user.encode(), encode(receipt), self.now_ms),
        ]


def hash_of(text: str) -> int:
    """A number that does not change from run to run."""
    return sum(ord(c) * (i + 1) for i, c in enumerate(text))


def history(feed: Feed, steps: int) -> list[Message]:
    """Many steps with two drift episodes in them, the second one open."""
    made = []
    for i in range(steps):
        made += feed.step()
        if i == int(steps * 0.55):
            made.append(feed.alert(1, "opened", "popularity", 30_000))
        if i == int(steps * 0.7):
            made.append(feed.alert(1, "closed", "popularity"))
        if i == int(steps * 0.94):
            made.append(feed.alert(2, "opened", "new_items", 15_000))
    return made
