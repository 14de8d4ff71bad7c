"""The pages under docs/ that are made from the code, and the check that says when they are not what the code says."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec import inspect

from intentstream import config_file
from intentstream.config import PUBLIC_KEYS, Config
from stream.errors import StreamError
from stream.log.base import TopicSpec
from stream.schema import topics
from stream.schema.events import REASONS
from stream.schema.json_schemas import EXAMPLES, schema_files
from stream.sources.simulator.config import SimulatorConfig

_ABOUT: Final[dict[str, tuple[str, str]]] = {  # topic: key, what is on it
    topics.EVENTS: ("user", "the input: actions of users"),
    topics.RECOMMENDATIONS: ("user", "the newest list of each user; a tombstone when the user was erased"),
    topics.INTENT_SHIFTS: ("user", "a user shifted to another intent"),
    topics.INTENT_CATALOG: (
        "intent id",
        "every present intent; a tombstone when retired or merged, after which the key may return",
    ),
    topics.DRIFT_ALERTS: ("signal", "a drift episode opened or closed"),
    topics.METRICS: ("worker", "the worker's figures every few seconds"),
    topics.ERASURES: ("user", "the receipt of a forgotten user"),
    topics.DEAD_LETTERS: ("as it came", "refused records, byte for byte, with the reason in the headers"),
    topics.JOURNAL: ("worker", "the decisions of each step; the state is a function of it"),
}
_MADE: Final = "`intentstream reference docs` generates this page; a test fails when it is stale."


def generated_files() -> dict[str, str]:
    """Paths below docs/ and what they must contain."""
    files = {f"schemas/{name}": text for name, text in schema_files().items()}
    return files | {"configuration.md": configuration_page(), "topics.md": topics_page()}


def write(docs: Path) -> list[str]:
    """Write what is stale or missing below `docs`; returns the paths written.

    Raises
    ------
    StreamError
        The folder cannot be written.
    """
    wanted = generated_files()
    changed = stale(docs)
    try:
        for name in changed:
            file = docs / name
            if name in wanted:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(wanted[name], encoding="utf-8")
            else:
                file.unlink()
    except OSError as exc:
        raise StreamError(f"{docs}: cannot be written: {exc.strerror}") from exc
    return changed


def stale(docs: Path) -> list[str]:
    """Return the paths below `docs` that are missing, not what the code says, or left over."""
    wanted = generated_files()
    found = [name for name, text in wanted.items() if not _holds(docs / name, text)]
    left_over = [f"schemas/{file.name}" for file in (docs / "schemas").glob("*.json")]
    return found + sorted(set(left_over) - wanted.keys())


def configuration_page() -> str:
    """Every key of the configuration file as Markdown tables."""
    config = Config()
    return (
        "# Configuration\n\n"
        "Every key of the TOML file given with `--config FILE`; a missing key has its default. `intentstream config` "
        "prints the keys that people set, with defaults and comments, `intentstream config --all` the "
        "[internal keys](#internal-keys) too. An unknown key or a wrong value is refused with file, key, value, "
        "rule and the nearest valid key."
        f"\n\n{_MADE}\n\n{config_file.reference(config, PUBLIC_KEYS)}\n"
        "## Internal keys\n\n"
        "Details of the method and limits of single loops, set by benchmarks and `intentstream tune`. Their defaults "
        "were measured; a later version may rename or remove them.\n\n"
        f"{config_file.reference(config, PUBLIC_KEYS, internal=True)}\n"
        "## The simulated shop\n\n"
        "A file of its own, given with `--shop FILE` to `run` and `simulate`; `intentstream config --shop` prints it."
        "\n\n"
        f"{config_file.reference(SimulatorConfig())}"
    )


def topics_page() -> str:
    """Every topic: key, retention, fields, example."""
    specs = topics.topic_specs(1)
    by_user = {spec.name for spec in topics.topic_specs(2) if spec.partitions == 2}
    lines = ["# Topics", "", f"Every topic and message of the log, field by field. {_MADE}", ""]
    lines += ["Values are JSON; readers must ignore unknown fields. Schemas are in `docs/schemas/`.", ""]
    lines += ["| topic | key | partitions | kept | content |", "|---|---|---|---|---|"]
    for spec in specs:
        key, about = _ABOUT[spec.name]
        count = "`log.partitions`" if spec.name in by_user else "1"
        lines.append(f"| [`{spec.name}`](#{spec.name.replace('.', '')}) | {key} | {count} | {_kept(spec)} | {about} |")
    for spec in specs:
        lines += ["", f"## {spec.name}", ""]
        if spec.name == topics.DEAD_LETTERS:
            lines += _dead_letters()
            continue
        example = EXAMPLES[spec.name]
        lines += [(type(example).__doc__ or "").strip().splitlines()[0], ""]
        lines += _fields(type(example))
        lines += ["", "```json", msgspec.json.format(msgspec.json.encode(example), indent=2).decode(), "```"]
    return "\n".join(lines) + "\n"


def _dead_letters() -> list[str]:
    reasons = ", ".join(f"`{reason}`" for reason in REASONS)
    return [
        "The record's own key and bytes; of a record above this topic's limit the first bytes.",
        "",
        "| header | content |",
        "|---|---|",
        f"| `reason` | one of {reasons} |",
        "| `field` | the wrong field, or `record`, or `key` |",
        "| `value` | the wrong value, shortened |",
        "| `rule` | the expected form |",
        "| `topic`, `partition`, `offset` | place of the record |",
        "| `size` | only of a shortened record: bytes of the whole key and value |",
        "",
        "A record with the reason `replayed` is a mark: it names offsets of this topic that",
        '`intentstream dead-letters replay` sent again: `{"ranges": [[start, stop], ...]}`.',
    ]


def _fields(kind: type[msgspec.Struct]) -> list[str]:
    lines = ["| field | type | meaning |", "|---|---|---|"]
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    if info.tag_field:
        lines.append(f"| `{info.tag_field}` | `{info.tag}` | version of the message |")
    for field in info.fields:
        meaning = config_file.meaning(field.type)
        optional = "" if field.required else " (may be missing)"
        lines.append(f"| `{field.encode_name}` | {_type(field.type)}{optional} | {meaning} |")
    return lines


def _type(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata():
            return _type(kind.type)
        case inspect.UnionType():
            parts = [_type(one) for one in kind.types if type(one).__name__ != "UnsetType"]
            return " or ".join(dict.fromkeys(parts))
        case inspect.ListType():
            return f"list of {_type(kind.item_type)}"
        case inspect.TupleType():
            return "[" + ", ".join(_type(one) for one in kind.item_types) + "]"
        case inspect.DictType():
            return f"object of {_type(kind.value_type)}"
        case inspect.StructType():
            inner = ", ".join(f"`{field.encode_name}`" for field in kind.fields)
            return f"object with {inner}"
        case inspect.LiteralType():
            return " or ".join(f"`{value}`" for value in sorted(kind.values, key=str))
        case inspect.NoneType():
            return "null"
    names = {"IntType": "integer", "FloatType": "number", "StrType": "text", "BoolType": "true or false"}
    return names[type(kind).__name__]


def _kept(spec: TopicSpec) -> str:
    if spec.cleanup == "compact":
        return "newest per key"
    parts = []
    if spec.retention_ms is not None:
        parts.append(f"{spec.retention_ms // topics.DAY_MS} days")
    if spec.retention_bytes is not None:
        parts.append(f"{spec.retention_bytes:,} bytes")
    if spec.retention_records is not None:
        parts.append(f"{spec.retention_records:,} records")
    return ", at most ".join(parts) or "everything"


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


__all__ = ["configuration_page", "generated_files", "stale", "topics_page", "write"]
