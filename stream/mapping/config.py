"""The section `[events]`: the topic of the events, the form of its records, and what their fields are called."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

OWN_TOPIC: Final = "behavior-events"

_PATH: Final = 'a dotted path such as "payload.after.id", alternatives separated by |, "=text" for a constant'


class EventsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events as they come: topic, format and field names; without any key, JSON with our own names."""

    topic: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="topic that the events are read from")
    ] = OWN_TOPIC
    preset: Annotated[
        str, Meta(description='shape that the keys below start from, such as "segment" or "debezium"; "" for our own')
    ] = ""
    user: Annotated[str, Meta(description=f"where a record names the user: {_PATH}")] = ""
    item: Annotated[str, Meta(description="where a record names the item; a path")] = ""
    ts: Annotated[str, Meta(description="where a record has its time; a path")] = ""
    action: Annotated[str, Meta(description='where a record has its action; a path, or "=purchase" for all')] = ""
    value: Annotated[str, Meta(description="where a record has its number, such as a rating; a path")] = ""
    items: Annotated[
        str,
        Meta(
            description="list of items inside a record, one event each; the other paths start in a member of it, "
            "or else in the record"
        ),
    ] = ""
    where: Annotated[
        dict[str, str],
        Meta(description="path and value of the records that are events; the others are skipped, alternatives with |"),
    ] = msgspec.field(default_factory=dict)
    actions: Annotated[
        dict[str, str], Meta(description="names of actions in the records, and those of `actions.weights`")
    ] = msgspec.field(default_factory=dict)
    time_format: Annotated[
        str, Meta(description='"s", "ms", "us", "ns", "iso", a form such as "%d/%m/%Y %H:%M", or "" by the value')
    ] = ""
    time_zone: Annotated[str, Meta(description='zone of times that name none, such as "Europe/Berlin"; "" for UTC')] = (
        ""
    )
    time_origin: Annotated[
        str, Meta(description='moment that times count from, such as "2024-01-01T00:00:00Z"; "" for 1970')
    ] = ""
    key: Annotated[
        Literal["user", "ignore"], Meta(description="the record's key: the user, which is checked, or anything else")
    ] = "user"
    format: Annotated[
        Literal["json", "avro", "protobuf", "json_schema"],
        Meta(description="form of the bytes; all but json are framed as Confluent's serializers do"),
    ] = "json"
    registry_url: Annotated[
        str, Meta(description='schema registry, such as "https://registry:8081"; for avro and protobuf')
    ] = ""
    registry_username: Annotated[str, Meta(description='user for the registry, "" for none')] = ""
    registry_password_env: Annotated[str, Meta(description="environment variable with the registry's password")] = ""
    registry_password_file: Annotated[str, Meta(description="file with the registry's password")] = ""
    registry_cafile: Annotated[
        str, Meta(description='file with the certificates to trust (PEM), "" those of the system')
    ] = ""
    registry_certfile: Annotated[str, Meta(description='file with our own certificate (PEM), "" for none')] = ""
    registry_keyfile: Annotated[str, Meta(description="file with the key of our certificate (PEM)")] = ""

    def __post_init__(self) -> None:
        if self.format in ("avro", "protobuf") and not self.registry_url:
            raise ValueError(f'registry_url = "": format = "{self.format}" needs one')
        if self.registry_password_env and self.registry_password_file:
            raise ValueError("registry_password_env and registry_password_file: give one of them, not both")
        if self.registry_username and not (self.registry_password_env or self.registry_password_file):
            raise ValueError("registry_password_env or registry_password_file: registry_username needs one")
        if bool(self.registry_certfile) != bool(self.registry_keyfile):
            raise ValueError("registry_certfile and registry_keyfile: give both or none")
        if self.time_origin and "%" in self.time_format:
            raise ValueError("time_origin: counts numbers, and time_format is a form of text")

    @property
    def renames(self) -> bool:
        """Whether the decoded records have another shape than our own."""
        return bool(
            self.preset
            or self.user
            or self.item
            or self.ts
            or self.action
            or self.value
            or self.items
            or self.where
            or self.actions
            or self.time_format
            or self.time_zone
            or self.time_origin
        )


__all__ = ["EventsConfig", "OWN_TOPIC"]
