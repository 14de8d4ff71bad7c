"""Schemas by id from a schema registry, over its HTTP API.

`GET /schemas/ids/{id}` and `GET /subjects/{subject}/versions/{version}`, as Confluent documents them and Karapace,
Apicurio and Redpanda offer them too. A schema never changes under its id, so that each is fetched once.
"""

from __future__ import annotations

import ssl
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx
import msgspec

from stream.errors import ConfigError, SchemasUnavailable
from stream.mapping.config import EventsConfig
from stream.secrets import read_secret

_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 4 << 20  # of an answer
_MAX_REFERENCES: Final = 200  # of a schema, those of its references included


class Reference(msgspec.Struct, frozen=True):
    """A schema that another one names."""

    name: str
    subject: str
    version: int


class _Answer(msgspec.Struct, frozen=True):
    schema: str
    schema_type: str = msgspec.field(default="AVRO", name="schemaType")
    references: list[Reference] | None = None


class SchemaRefused(Exception):
    """A schema cannot be used; the text says why."""


class Schema(NamedTuple):
    """A registered schema and all that it refers to, those first that refer to nothing."""

    text: str
    kind: str
    """AVRO, PROTOBUF or JSON"""
    references: dict[str, str]
    """text by the name under which the schema, or one of its references, knows it"""


class SchemaRegistry:
    """A client of one registry; every call is one attempt.

    Parameters
    ----------
    events
        URL, user, password and certificates.

    Raises
    ------
    ConfigError
        The password or a certificate cannot be read, or the URL is none.
    """

    def __init__(self, events: EventsConfig) -> None:
        self.url = events.registry_url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"events.registry_url = {events.registry_url!r}: must begin with http:// or https://")
        try:
            httpx.URL(self.url)
        except httpx.InvalidURL as exc:
            raise ConfigError(f"events.registry_url = {events.registry_url!r}: {exc}") from None
        auth = None
        if user := events.registry_username:
            secret = (events.registry_password_env, events.registry_password_file)
            auth = (user, read_secret("events.registry_password", *secret))
        self._client = httpx.Client(
            base_url=self.url,
            auth=auth,
            verify=_trust(events),
            timeout=_TIMEOUT_S,
            headers={"accept": "application/vnd.schemaregistry.v1+json, application/json"},
        )

    def schema(self, schema_id: int) -> Schema | None:
        """The schema with this id; None when the registry has none.

        Raises
        ------
        SchemasUnavailable
            No answer, or one that says nothing about the schema: 401, 403, 429, 5xx, a proxy's page.
        SchemaRefused
            It is too large, or refers to more than is read or to what the registry does not have.
        """
        found = self._get(f"/schemas/ids/{schema_id}")
        if found is None:
            return None
        references: dict[str, str] = {}
        self._add_references(found, references)
        return Schema(found.schema, found.schema_type, references)

    def _add_references(self, found: _Answer, into: dict[str, str]) -> None:
        for one in found.references or ():
            if one.name in into:
                continue
            if len(into) >= _MAX_REFERENCES:
                raise SchemaRefused(f"has more than {_MAX_REFERENCES} references")
            into[one.name] = ""  # a circle ends here
            answer = self._get(f"/subjects/{quote(one.subject, safe='')}/versions/{one.version}")
            if answer is None:
                raise SchemaRefused(
                    f"refers to version {one.version} of {one.subject!r:.200}, which the registry does not have"
                )
            self._add_references(answer, into)
            del into[one.name]  # behind what it refers to
            into[one.name] = answer.schema

    def _get(self, path: str) -> _Answer | None:
        try:
            with self._client.stream("GET", path) as response:
                status, body = response.status_code, b""
                for part in response.iter_bytes():
                    body += part
                    if len(body) > _MAX_BYTES:
                        break
        except httpx.HTTPError as exc:
            raise SchemasUnavailable(f"schema registry {self.url}: {str(exc) or type(exc).__name__}") from exc
        if status == 404 and _is_own_error(body):
            return None
        if status != 200:
            raise SchemasUnavailable(f"schema registry {self.url}: {status} for {path}")
        if len(body) > _MAX_BYTES:
            raise SchemaRefused(f"has more than {_MAX_BYTES} bytes")
        try:
            return msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, ValueError) as exc:
            raise SchemasUnavailable(f"schema registry {self.url}: the answer for {path} is no schema: {exc}") from exc


def _is_own_error(body: bytes) -> bool:
    """Whether the registry itself answered, not a proxy in front of it that knows no such path."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "error_code" in found


def _trust(events: EventsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=events.registry_cafile or None)
        if events.registry_certfile:
            context.load_cert_chain(events.registry_certfile, events.registry_keyfile)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"events.registry_cafile, registry_certfile, registry_keyfile: cannot be read as PEM: {exc}"
        ) from exc
    return context


__all__ = ["Reference", "Schema", "SchemaRefused", "SchemaRegistry"]
