"""What was compiled from the registry's schemas, by id, and which of them are refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from stream.mapping.reader import UnreadableRecord
from stream.mapping.wire.registry import Schema, SchemaRefused, SchemaRegistry

_T = TypeVar("_T")
_KEPT: Final = 1_000  # schemas, good and refused ones each


class CompiledSchemas(Generic[_T]):
    """Fetches a schema once and compiles it; one that is refused is kept as such.

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
        self._missing = set[int]()  # of the records at hand

    def fetch(self, schema_ids: Iterable[int]) -> None:
        """Fetch and compile the schemas that are not known yet; raises `SchemasUnavailable`.

        An id that the registry does not have is asked for again with the next records that name it: it may be
        registered meanwhile.
        """
        self._missing.clear()
        for schema_id in schema_ids:
            if schema_id not in self._compiled and schema_id not in self._refused:
                self._fetch(schema_id)

    def _fetch(self, schema_id: int) -> None:
        try:
            found = self._registry.schema(schema_id)
            if found is None:
                self._missing.add(schema_id)
                return
            if found.kind != self._kind:
                raise SchemaRefused(f"is of kind {found.kind}, not {self._kind}")
            _keep(self._compiled, schema_id, self._compile(found))
        except SchemaRefused as exc:
            _keep(self._refused, schema_id, str(exc))

    def get(self, schema_id: int, value: bytes) -> _T:
        """The compiled schema of a record; `UnreadableRecord` when its id has none."""
        if schema_id not in self._compiled and schema_id not in self._refused and schema_id not in self._missing:
            self._fetch(schema_id)  # more schemas than are kept in one batch
        found = self._compiled.get(schema_id)
        if found is not None:
            return found
        why = self._refused.get(schema_id)
        rule = f"the registry has no schema {schema_id}" if why is None else f"schema {schema_id} {why}"
        raise UnreadableRecord("unknown_schema", value, rule)


def _keep(kept: OrderedDict[int, _T], schema_id: int, value: _T) -> None:
    kept[schema_id] = value
    if len(kept) > _KEPT:
        kept.popitem(last=False)


__all__ = ["CompiledSchemas"]
