"""How many mini-batches are learned after a step."""

from __future__ import annotations

from typing import Final

from stream.config import StreamConfig

_LEARN_AT: Final = 10  # learning waits until a tenth of a mini-batch has come


def plan_learning(config: StreamConfig, records: int, unlearned: int, backlog: int, factor: float) -> int:
    """Mini-batches after a step.

    Small steps wait for each other until their pairs fill a tenth of a mini-batch, or all that the learner keeps.

    Parameters
    ----------
    config
        Its sections `engine` and `learner`.
    records
        Records of the step.
    unlearned
        Pairs that wait to be learned.
    backlog
        Records that wait to be read.
    factor
        On the number of mini-batches, while an episode acts.
    """
    engine = config.engine
    few = max(records, unlearned) * engine.learn_steps * _LEARN_AT < engine.step_records
    if few and unlearned < config.learner.recent_pairs:
        return 0
    steps = round(-(-records * engine.learn_steps // engine.step_records) * factor)
    if backlog > engine.backlog_records:
        steps = max(engine.learn_floor, steps * engine.backlog_records // backlog)
    return min(steps, engine.max_learn_steps)


__all__ = ["plan_learning"]
