"""ELCRec text: `user item item …`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.parser import FileFormat, Parser

_FIRST_TS: Final = 946_684_800_000  # 2000-01-01, of the first event


class ElcRecParser(Parser):
    """`user item item …`, one user a line, oldest item first; without times, so events get one a second."""

    def __init__(self, file_format: FileFormat) -> None:
        self.format = file_format

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield chunks of `n` records, the last one smaller; a line makes as many as it has items."""
        users: list[str] = []
        items: list[str] = []
        unparsed: list[tuple[int, bytes]] = []  # place counted from record `start`
        start = 0
        for line in lines:
            try:
                user, *taken = line.decode().split()
            except ValueError:
                taken = []
            if taken:
                users += [user] * len(taken)
                items += taken
            else:
                unparsed.append((len(users) + len(unparsed), line))
            while len(users) + len(unparsed) >= n:
                chunk = _chunk(start, users, items, unparsed)
                head = chunk.head(n)
                yield head
                users, items = users[len(head.users) :], items[len(head.users) :]
                unparsed = [(place - n, raw) for place, raw in unparsed if place >= n]
                start += n
        if users or unparsed:
            yield _chunk(start, users, items, unparsed)


def _chunk(start: int, users: list[str], items: list[str], unparsed: list[tuple[int, bytes]]) -> EventChunk:
    size = len(users) + len(unparsed)
    index = np.setdiff1d(np.arange(size), np.array([place for place, _ in unparsed], dtype=np.int64))
    return EventChunk(start, users, items, _FIRST_TS + 1000 * (start + index), index, unparsed=unparsed)


def is_elcrec(lines: Sequence[bytes]) -> bool:
    """Return whether most of the lines have a user and an item, and one has two items."""
    rows = [line.split() for line in lines]
    return sum(len(row) >= 2 for row in rows) * 2 > len(rows) and max(map(len, rows)) >= 3


def elcrec_parser(gzipped: bool) -> ElcRecParser:
    """Return the parser; nothing in the file needs to be found out for it."""
    notes = ["no times in this format: one second from event to event, from 2000-01-01 on, user by user"]
    rule = "a user and at least one item, separated by blanks"
    return ElcRecParser(FileFormat("elcrec", gzipped, {}, "none", notes, rule))


__all__ = ["elcrec_parser", "is_elcrec"]
