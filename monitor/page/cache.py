"""Rendered parts of the page, shared by all viewers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from monitor.service import Service

_T = TypeVar("_T")
_MOST: Final = 64


class RenderCache:
    """Renders each part, as JSON, once per change for all viewers with the same theme and window."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._rendered: dict[tuple[Any, ...], tuple[tuple[int, ...], Any]] = {}

    def get(self, key: tuple[Any, ...], topics: tuple[str, ...], render: Callable[[], _T], version: int = 0) -> _T:
        """The part under this key; rendered anew when one of the topics has new records, or `version` changes."""
        revision = (version, *(self.service.view.revision[topic] for topic in topics))
        found = self._rendered.get(key)
        if found is not None and found[0] == revision:
            kept: _T = found[1]
            return kept
        if len(self._rendered) > _MOST:
            self._rendered.clear()
        rendered = render()
        self._rendered[key] = (revision, rendered)
        return rendered
