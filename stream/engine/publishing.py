"""Which lists a step publishes, and what the users' records remember of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner.online.learner import Learner
from learner.online.step import Ranking
from stream.config import EngineConfig
from stream.engine.users import TouchedUsers
from stream.log.base import Message
from stream.schema import topics
from stream.schema.messages import Recommendations, Recommended, Source

SOURCES: Final[tuple[Source, ...]] = ("model", "intent", "popular")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Published:
    """The lists that a step publishes."""

    rows: NDArray[np.int64]
    """(m,) of the U users, those whose list is published"""
    lists: NDArray[np.int64]
    """(m, k) item handles, best first, 0 where there is none"""
    messages: list[Message]
    """(m,)"""

    def put(self, records: NDArray[Any], ts: NDArray[np.int64], step: int) -> None:
        """Write the lists into the records (U,) of the users, whose newest events are of `ts` (U,)."""
        records["list"][self.rows] = self.lists
        records["list_ts"][self.rows] = ts[self.rows]
        records["list_step"][self.rows] = step


class Publisher:
    """Chooses the lists that are worth publishing and builds their messages.

    Parameters
    ----------
    config
        When a list is published again, and how long it is.
    learner
        Names items, and who serves.
    """

    def __init__(self, config: EngineConfig, learner: Learner) -> None:
        self._config = config
        self._learner = learner

    def publish(self, users: TouchedUsers, ranking: Ranking, records: NDArray[Any], step: int) -> Published:
        """Build a message for every user whose list is worth publishing.

        Parameters
        ----------
        users, ranking
            The U users and their lists as of this step.
        records
            (U,) records of the users after the step, with the lists published before.
        step
            Engine step.
        """
        rows = self._rows_to_publish(users, ranking, records)
        lists = np.zeros((len(rows), self._config.list_len), dtype=np.int64)
        lists[:, : ranking.items.shape[1]] = ranking.items[rows]
        return Published(rows, lists, self._messages(users, ranking, records["intent"], rows, step))

    def _rows_to_publish(self, users: TouchedUsers, ranking: Ranking, records: NDArray[Any]) -> NDArray[np.int64]:
        """Users whose list is new, changed in enough places, too old, or holds an item that they have since taken."""
        old = records["list"][:, : ranking.items.shape[1]]
        entered = ((ranking.items[:, :, None] != old[:, None, :]).all(axis=2) & (ranking.items != 0)).sum(axis=1)
        aged = users.ts - records["list_ts"] > self._config.republish_after_ms
        taken = ((old[:, :, None] == records["items"][:, None, :]) & (old != 0)[:, :, None]).any(axis=(1, 2))
        due = (records["list_step"] == 0) | (entered >= self._config.republish_changes) | aged | taken
        # an empty list says that the old one holds no longer; who has none needs none
        return np.flatnonzero(np.where((ranking.items != 0).any(axis=1), due, (old != 0).any(axis=1)))

    def _messages(
        self,
        users: TouchedUsers,
        ranking: Ranking,
        intents: NDArray[np.integer[Any]],
        rows: NDArray[np.int64],
        step: int,
    ) -> list[Message]:
        learner = self._learner
        items, because = self._item_ids(ranking.items[rows]), self._item_ids(ranking.because[rows])
        scores = np.round(ranking.scores[rows].astype(np.float64), 4).tolist()
        sources, serving_step = ranking.source[rows].tolist(), learner.serving_step
        serving = "snapshot" if learner.serving == "snapshot" else None
        ts = users.ts
        messages = []
        for row, ids, score, source, reasons in zip(rows.tolist(), items, scores, sources, because, strict=True):
            intent = int(intents[row])
            body = Recommendations(
                user=users.names[row].decode(),
                items=[Recommended(item=item, score=value) for item, value in zip(ids, score, strict=False)],
                intent=None if intent < 0 else intent,
                source=SOURCES[source],
                because=reasons,
                step=step,
                model_step=serving_step,
                serving=serving,  # type: ignore[arg-type]  # mypy widens the literal
                as_of=users.as_of(row),
            )
            messages.append(Message(topics.RECOMMENDATIONS, users.names[row], _encode(body), int(ts[row])))
        return messages

    def _item_ids(self, handles: NDArray[np.int64]) -> list[list[str]]:
        """Item ids of handles (m, k), those of recycled or missing items left out."""
        ids, k = self._learner.item_ids(handles.ravel()), handles.shape[1]
        return [_present(ids[start : start + k]) for start in range(0, len(ids), k)]


def _present(ids: Sequence[str]) -> list[str]:
    return [item for item in ids if item]


__all__ = ["Published", "Publisher", "SOURCES"]
