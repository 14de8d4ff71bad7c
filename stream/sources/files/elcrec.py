"""ELCRec text: `user item item …`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from stream.sources.files.containers import Container
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.parser import FIRST_TS, FileFormat, Parser


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
            if taken and b"".join(line.split()).isdigit():
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
    return EventChunk(start, users, items, FIRST_TS + 1000 * (start + index), index, unparsed=unparsed)


def is_elcrec(lines: Sequence[bytes]) -> bool:
    """Whether the lines are sequences, surely: whole numbers, each user once, and not the same number in every line.

    Lines of three or four numbers each are more often user, item, rating and time.
    """
    rows = [line.split() for line in lines]
    good = [row for row in rows if len(row) >= 2]
    if len(good) * 2 <= len(rows) or max(map(len, rows)) < 3:
        return False
    users = [row[0] for row in good]
    widths = {len(row) for row in good}
    table = len(good) > 1 and len(widths) == 1 and widths <= {3, 4}
    return len(set(users)) == len(users) and not table and all(cell.isdigit() for row in good for cell in row)


def elcrec_parser(container: Container) -> ElcRecParser:
    """Return the parser; it needs nothing from the file."""
    notes = [
        "user = the first number of a line, items = the others",
        "no times in this format: one second from event to event, from 2000-01-01 on, user by user",
    ]
    rule = "a user and at least one item, separated by blanks"
    return ElcRecParser(FileFormat("elcrec", container, {}, notes=notes, rule=rule))


__all__ = ["elcrec_parser", "is_elcrec"]
