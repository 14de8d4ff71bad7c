"""What a digest of the state is made with."""

from __future__ import annotations

from typing import Any, Protocol


class Hash(Protocol):
    """What `hashlib` objects can do."""

    def update(self, data: Any, /) -> None:
        """Add bytes."""


__all__ = ["Hash"]
