from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from intentstream import reference
from stream.schema import topics
from stream.schema.decoder import decode_events
from stream.schema.json_schemas import EXAMPLES, schema, schema_files
from stream.schema.messages import MESSAGE_TYPES, AsOf, Recommended

DOCS = Path(__file__).parents[4] / "docs"


def test_the_pages_made_from_the_code_are_what_the_code_says() -> None:
    assert reference.stale(DOCS) == [], "run `make reference`"


def test_what_is_stale_is_named_and_written(tmp_path: Path) -> None:
    assert len(reference.write(tmp_path)) == len(reference.generated_files())
    assert reference.stale(tmp_path) == []
    (tmp_path / "topics.md").write_text("old")
    (tmp_path / "schemas" / "gone.schema.json").write_text("{}")
    assert reference.stale(tmp_path) == ["topics.md", "schemas/gone.schema.json"]
    reference.write(tmp_path)
    assert reference.stale(tmp_path) == []


def test_every_topic_has_an_example_and_every_struct_a_topic() -> None:
    names = {spec.name for spec in topics.topic_specs(1)}
    assert names == EXAMPLES.keys() | {topics.DEAD_LETTERS}
    assert {type(example) for topic, example in EXAMPLES.items() if topic != topics.EVENTS} == set(MESSAGE_TYPES)
    assert set(topics.OUTPUTS) < names


@pytest.mark.parametrize("kind", [*MESSAGE_TYPES, Recommended, AsOf])
def test_a_default_is_left_out_whichever_object_holds_it(kind: type[msgspec.Struct]) -> None:
    """msgspec leaves a default out by identity: a text that came out of a checkpoint would be written all the same."""
    alone = (None, False, True, "", *range(-5, 257))  # of each of these values there is one object
    for field in msgspec.structs.fields(kind):
        if field.default is not msgspec.NODEFAULT:
            assert field.default in alone, field.name
        else:
            assert field.default_factory in (msgspec.NODEFAULT, list, dict), field.name  # told by being empty


@pytest.mark.parametrize("topic", EXAMPLES)
def test_examples_fit_their_schemas(topic: str) -> None:
    files = schema_files()
    made = json.loads(files[f"{topic}.schema.json"])
    jsonschema.Draft202012Validator.check_schema(made)
    jsonschema.validate(json.loads(files[f"{topic}.example.json"]), made)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, made)


@pytest.mark.parametrize("kind", MESSAGE_TYPES)
def test_the_schema_version_is_always_written_and_another_one_refused(kind: type[msgspec.Struct]) -> None:
    example = next(example for example in EXAMPLES.values() if type(example) is kind)
    data = msgspec.json.encode(example)
    assert json.loads(data)["schema"] == 1
    assert msgspec.json.decode(data, type=kind) == example
    with pytest.raises(msgspec.ValidationError, match="schema"):
        msgspec.json.decode(data.replace(b'"schema":1', b'"schema":2'), type=kind)
    # readers ignore what they do not know
    assert msgspec.json.decode(data[:-1] + b',"later":1}', type=kind) == example
    assert schema(kind)["title"] == kind.__name__


def test_the_example_event_is_a_good_event() -> None:
    assert not decode_events([msgspec.json.encode(EXAMPLES[topics.EVENTS])]).rejections
