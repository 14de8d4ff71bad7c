"""The engine on a simulated shop, without a log: what `intents.py` and `drift.py` share.

python -m benchmarks.simulated

How many records a second the simulator makes, as arrays and as they go onto the log. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from intentstream.config import Config
from stream.engine.engine import Engine, StepResult
from stream.log.base import RecordBatch
from stream.schema import topics
from stream.sources.simulator.chunk import Chunk
from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.simulator import Simulator
from stream.sources.simulator.truth import Truth

STEP = 256


class Step(NamedTuple):
    """One step of the run."""

    chunk: Chunk
    result: StepResult
    engine: Engine


def one_partition(config: Config) -> Config:
    """The configuration with one partition, as for a file: an offset is then a position in the stream."""
    return msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, partitions=1))


def steps(config: Config, shop: SimulatorConfig, seed: int, events: int) -> Iterator[Step]:
    """Run the first `events` records of the shop through a fresh engine, step by step, and learn after each."""
    simulator = Simulator(shop, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine.open(one_partition(config), Path(folder))
        try:
            for start in range(0, events, STEP):
                chunk = simulator.next_chunk(min(STEP, events - start))
                n = len(chunk)
                offsets = list(range(start, start + n))
                batch = RecordBatch(
                    topics.EVENTS, 0, offsets, list(chunk.keys), list(chunk.values), [0] * n, [()] * n, start + n
                )
                result = engine.step([batch])
                engine.learn(engine.plan_learning(result.records, 0))
                yield Step(chunk, result, engine)
        finally:
            engine.close()


def published(result: StepResult, topic: str) -> list[dict[str, Any]]:
    """The messages of one topic, decoded."""
    return [json.loads(message.value) for message in result.messages if message.topic == topic and message.value]


class Timed:
    """Adds up the seconds of processor that this thread spends in methods of an object."""

    def __init__(self, target: Any, names: tuple[str, ...]) -> None:
        self.seconds = 0.0
        for name in names:
            setattr(target, name, self._wrap(getattr(target, name)))

    def _wrap(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.thread_time() - began

        return timed


class Cost:
    """What intents, shifts, detectors, fallback and catalog take of steps and learning."""

    def __init__(self, engine: Engine) -> None:
        self._loop = Timed(engine, ("step", "learn"))
        drift = ("score_shadows", "choose_serving", "detect", "apply_actions", "note_learning")
        tracker = engine.learner.tracker
        self._parts = [
            Timed(engine.drift, drift),
            Timed(engine.intents, ("follow", "follow_centers", "catalog")),
            Timed(tracker, ("observe",)),
        ]

    @property
    def share(self) -> float:
        """Of the time since."""
        return sum(part.seconds for part in self._parts) / max(self._loop.seconds, 1e-9)


def normalised_mutual_information(found: np.ndarray[Any, Any], true: np.ndarray[Any, Any]) -> float:
    """Mutual information of two labellings over the mean of their entropies: 1 for the same, 0 for independent ones."""
    _, a = np.unique(found, return_inverse=True)
    _, b = np.unique(true, return_inverse=True)
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1 / len(a))

    def entropy(p: np.ndarray[Any, Any]) -> float:
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    mean = (entropy(joint.sum(0)) + entropy(joint.sum(1))) / 2
    shared = entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint.ravel())
    return shared / mean if mean else 1.0


def main() -> None:
    """Time the simulator alone."""
    records = 400_000
    shop = Simulator(SimulatorConfig(), seed=1)
    shop.next_chunk(STEP)
    began = time.perf_counter()
    chunk = shop.next_chunk(records)
    arrays = time.perf_counter() - began
    assert len(chunk.values) == len(chunk.keys) == records
    whole = time.perf_counter() - began
    sys.stdout.write(
        json.dumps({"arrays_per_second": int(records / arrays), "records_per_second": int(records / whole)})
    )
    sys.stdout.write("\n")


__all__ = [
    "Cost",
    "STEP",
    "Step",
    "Timed",
    "Truth",
    "normalised_mutual_information",
    "one_partition",
    "published",
    "steps",
]

if __name__ == "__main__":
    main()
