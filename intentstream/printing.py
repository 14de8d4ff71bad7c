"""Printing ids, titles and paths that strangers wrote: a terminal shows them and obeys none of them."""

from __future__ import annotations

from rich.console import Console


def open_console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: `[red]` is no color and `:tea:` no picture."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def readable(text: str) -> str:
    r"""Escape what is not printable, so that a terminal shows it.

    >>> readable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


__all__ = ["open_console", "readable"]
