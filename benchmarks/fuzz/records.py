"""Hostile records through an engine: counts that reconcile, the slowest record, and memory after every checkpoint."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.fuzz.memory import heap_mb, resident_mb
from intentstream.config import Config
from learner.runtime import release_freed_memory
from stream.engine.engine import Engine
from stream.log.base import RecordBatch
from stream.log.partitioner import partition_of
from stream.schema import topics
from stream.schema.decoder import Decoder
from stream.schema.events import MAX_RECORD_BYTES, MAX_TS, MIN_TS

STEP: Final = 2000
CHECKPOINT_STEPS: Final = 10
CAPACITY: Final = 8192  # items; new ones come all the time and recycle the oldest
CACHE_BYTES: Final = 8 << 20
WARM_UP: Final = 300_000  # records until tables of items, cache and pairs to replay are full
START_MS: Final = 1_767_268_800_000  # 2026-01-01 12:00 UTC
USERS: Final = 20_000
ITEMS: Final = 5_000
_VALUES: Final[list[Any]] = ["N/A", "nan", "4,5", True, [], 10**400, float("nan")]
Record = tuple[bytes | None, bytes | None]  # key, value


class Generator:
    """Records of every kind that a topic may hold, good ones first among them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._number = 0
        self._last: Record = (None, None)
        self._kinds: dict[str, tuple[int, Callable[[], Record]]] = {
            "good": (600, self._good),
            "again": (20, lambda: self._last),
            "new user": (60, lambda: self._event(user=f"new-{self._number}")),
            "new item": (60, lambda: self._event(item=f"new-{self._number}")),
            "late": (20, lambda: self._event(ts=self.now_ms - self._random.randrange(10**9))),
            "any time": (20, lambda: self._event(ts=self._random.randrange(MIN_TS, MAX_TS))),
            "ahead": (20, lambda: self._event(ts=self.now_ms + self._random.randrange(10**11))),
            "unknown fields": (20, lambda: self._event(more={"a": [1, 2, {"b": None}]}, colour="red")),
            "other value": (40, lambda: self._event(value=self._random.choice(_VALUES))),
            "huge id": (5, lambda: self._event(user="u" * self._random.randrange(250, 60_000))),
            "digits": (10, self._digits),
            "nested": (10, self._nested),
            "broken": (20, self._broken),
            "bytes": (20, lambda: (None, self._random.randbytes(self._random.randrange(200)))),
            "large": (3, lambda: self._event(more="x" * self._random.randrange(60_000, 2 * MAX_RECORD_BYTES))),
            "other types": (20, self._other_types),
            "other key": (10, lambda: (b"nobody", self._event()[1])),
            "tombstone": (5, lambda: (b"u1", None)),
            "erase": (5, lambda: self._keyed({"user": self._user(), "action": "erase"})),
            "unicode": (10, lambda: self._event(user=chr(self._random.randrange(0xD000, 0xE100)) * 3)),
        }

    def take(self, count: int) -> list[tuple[str, Record]]:
        """The next `count` records with their kinds."""
        names = list(self._kinds)
        chosen = self._random.choices(names, [weight for weight, _ in self._kinds.values()], k=count)
        made = []
        for name in chosen:
            self._number += 1
            record = self._kinds[name][1]()
            self._last = record if name == "good" else self._last
            made.append((name, record))
        return made

    @property
    def now_ms(self) -> int:
        """Wall clock of the stream."""
        return START_MS + self._number * 500

    def _user(self) -> str:
        return f"u{min(int(self._random.paretovariate(0.3)), USERS)}"

    def _keyed(self, event: dict[str, Any]) -> Record:
        value = json.dumps(event).encode("utf-8", "surrogatepass")
        key = str(event.get("user", "")).encode("utf-8", "surrogatepass")
        return key, value

    def _event(self, **fields: Any) -> Record:
        item = f"i{min(int(self._random.paretovariate(0.5)), ITEMS)}"
        return self._keyed({"user": self._user(), "item": item, "ts": self.now_ms, **fields})

    def _good(self) -> Record:
        return self._event(action=self._random.choice(["view", "click", "cart", "purchase", "dislike"]))

    def _digits(self) -> Record:
        digits = b"9" * self._random.choice([20, 300, 4_299, 20_000])
        field = self._random.choice([b"user", b"item", b"ts", b"value", b"more"])
        return None, b'{"user":"a","item":"b","ts":%d,"%b":%b}' % (self.now_ms, field, digits)

    def _nested(self) -> Record:
        depth = self._random.randrange(1, 60_000)
        opening = self._random.choice([b"[", b'{"a":', b"[1e5,", b"[1e999,"])
        return None, (b'{"user":"a","item":"b","ts":1,"more":' + opening * (depth // len(opening)))[:MAX_RECORD_BYTES]

    def _broken(self) -> Record:
        key, value = self._event()
        data = bytearray(value or b"")
        for _ in range(self._random.randrange(1, 4)):
            place = self._random.randrange(len(data))
            if self._random.random() < 0.5:
                data[place] = self._random.randrange(256)
            else:
                del data[place:]
                data += b" "
        return key, bytes(data)

    def _other_types(self) -> Record:
        field = self._random.choice(["user", "item", "ts", "action"])
        value: Any = self._random.choice([None, True, 1.5, [], {}, "", -1, 0, 10**30, "x" * 300])
        return self._event(**{field: value})


def fuzz_records(count: int, seed: int) -> dict[str, Any]:
    """Take `count` hostile records through an engine, learning and checkpoints included."""
    default, replace = Config(), msgspec.structs.replace
    config = replace(
        default,
        learner=replace(default.learner, capacity=CAPACITY),
        state=replace(default.state, cache_bytes=CACHE_BYTES),  # full soon: what grows after that is a leak
    )
    generator, decoder = Generator(seed), Decoder(config.actions)
    partitions = config.log.partitions
    ends = [0] * partitions
    heap, warm = [heap_mb()], WARM_UP // (STEP * CHECKPOINT_STEPS)
    memory, slowest, kinds = [resident_mb()], (0.0, ""), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine.open(config, Path(folder))
        try:
            for start in range(0, count, STEP):
                parts: list[list[Record]] = [[] for _ in range(partitions)]
                for kind, (key, value) in generator.take(min(STEP, count - start)):
                    kinds[kind] += 1
                    began = time.perf_counter()
                    decoder.decode([value], [key], [generator.now_ms])
                    slowest = max(slowest, (time.perf_counter() - began, kind))
                    parts[partition_of(key or b"", partitions)].append((key, value))
                now_ms = generator.now_ms
                result = engine.step([_batch(p, records, ends, now_ms) for p, records in enumerate(parts)])
                engine.learn(engine.plan_learning(result.records, 0))
                if start // STEP % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1:
                    engine.checkpoint()
                    release_freed_memory()  # as a worker does
                    memory.append(resident_mb())
                    heap.append(heap_mb())
            counts = {name: engine.counters[name] for name in ("events", "duplicates", "dead_letters", "erased")}
            return {
                "records": engine.record_number,
                **counts,
                "reconciles": sum(counts.values()) == engine.record_number == count,
                "users": engine.counters["users"],
                "items": engine.learner.size,
                "kinds": dict(kinds),
                "slowest_ms": round(slowest[0] * 1000, 3),
                "slowest_kind": slowest[1],
                "resident_mb": memory,
                "heap_mb": heap,
                "grown_after_warm_up_mb": round(heap[-1] - heap[warm], 1) if warm < len(heap) else None,
            }
        finally:
            engine.close()


def _batch(partition: int, records: list[Record], ends: list[int], now_ms: int) -> RecordBatch:
    """The next records of a partition, which arrived now; `ends` moves behind them."""
    n, start = len(records), ends[partition]
    ends[partition] += n
    keys, values = [key for key, _ in records], [value for _, value in records]
    return RecordBatch(
        topics.EVENTS, partition, list(range(start, start + n)), keys, values, [now_ms] * n, [()] * n, start + n
    )
