"""What was compiled from the registry's schemas, by id, and the ids that have none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from stream.mapping.reader import UnreadableRecord
from stream.mapping.wire.registry import Schema, SchemaRegistry

_T = TypeVar("_T")
_KEPT: Final = 1_000  # compiled schemas
_KEPT_REFUSED: Final = 20_000  # ids without one: records of chance name many


class SchemaRefused(Exception):
    """A schema cannot be used; the text says why."""


class CompiledSchemas(Generic[_T]):
    """Fetches a schema once and compiles it; an id without a schema, or with one that is refused, is kept too.

    Parameters
    ----------
    kind
        AVRO, PROTOBUF or JSON: a schema of another kind is refused.
    compile_schema
        Compiles a schema, or raises `SchemaRefused`.
    """

    def __init__(self, registry: SchemaRegistry, kind: str, compile_schema: Callable[[Schema], _T]) -> None:
        self._registry, self._kind, self._compile = registry, kind, compile_schema
        self._compiled: OrderedDict[int, _T] = OrderedDict()
        self._refused: OrderedDict[int, str] = OrderedDict()

    def knows(self, schema_id: int) -> bool:
        """Whether it is known what there is under this id."""
        return schema_id in self._compiled or schema_id in self._refused

    def fetch(self, schema_id: int) -> None:
        """Fetch and compile a schema; raises `SchemasUnavailable`."""
        found = self._registry.schema(schema_id)
        if found is None:
            _keep(self._refused, schema_id, f"the registry has no schema {schema_id}", _KEPT_REFUSED)
            return
        try:
            if found.kind != self._kind:
                raise SchemaRefused(f"is of kind {found.kind}, not {self._kind}")
            _keep(self._compiled, schema_id, self._compile(found), _KEPT)
        except SchemaRefused as exc:
            _keep(self._refused, schema_id, f"schema {schema_id} {exc}", _KEPT_REFUSED)

    def get(self, schema_id: int, value: bytes) -> _T:
        """The compiled schema of a record; `UnreadableRecord` when its id has none."""
        found = self._compiled.get(schema_id)
        if found is None:
            if not self.knows(schema_id):
                self.fetch(schema_id)
                return self.get(schema_id, value)
            raise UnreadableRecord("unknown_schema", value, self._refused[schema_id])
        return found


def _keep(kept: OrderedDict[int, _T], schema_id: int, value: _T, most: int) -> None:
    kept[schema_id] = value
    if len(kept) > most:
        kept.popitem(last=False)


__all__ = ["CompiledSchemas", "SchemaRefused"]
