"""`intentstream map`: what it prints is a configuration that works as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from intentstream.cli.app import app
from intentstream.cli.worker import announce_mapping
from intentstream.config import Config, load_config
from stream.errors import ConfigError
from stream.log import EventLog, open_log
from stream.log.base import Message
from stream.mapping.decoder import make_decoder
from stream.schema import topics
from stream.sources.files.event_file import EventFile
from stream.sources.files.options import parse_options
from tests.unit.intentstream.commands import run_command

DATA = Path(__file__).parents[2] / "data" / "formats"
TS = 1_571_000_000_000


def mapped(tmp_path: Path, *words: str | Path) -> Config:
    path = tmp_path / "events.toml"
    path.write_text(run_command(app, "map", *words))
    return load_config(path)


@pytest.mark.parametrize(
    "name",
    [
        *("segment.jsonl", "segment_orders.jsonl", "debezium.jsonl", "cloudevents.jsonl", "otto.jsonl", "nested.jsonl"),
        *("iso.jsonl", "rees46.csv", "retailrocket_events.csv", "hm_transactions.csv", "float_ids.parquet"),
    ],
)
def test_the_section_for_a_file_reads_the_file(name: str, tmp_path: Path) -> None:
    config = mapped(tmp_path, DATA / name)
    file = EventFile(DATA / name, options=parse_options(config.actions.names(), events=config.events))
    chunks = list(file)
    assert sum(len(chunk.users) for chunk in chunks) == (120 if name == "segment_orders.jsonl" else 60)
    assert not any(chunk.unparsed for chunk in chunks)


def fill(log: EventLog, topic: str, records: list[tuple[bytes | None, dict[str, Any]]]) -> None:
    log.create_topics(topics.topic_specs(2, topic))
    log.append([Message(topic, key, json.dumps(record).encode(), TS) for key, record in records])


def test_the_section_for_a_topic_decodes_its_records(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'log'}"
    record = {"meta": {"at": "13.10.2019 20:53"}, "buyer": {"id": 7}, "product": {"sku": "x"}, "kind": "bought"}
    records = [(b"other", record | {"type": "sold"}) for _ in range(20)]
    with open_log(url) as log:
        fill(log, "clicks", [(key, {**one, "event": "Purchased"}) for key, one in records])
    shown = run_command(app, "map", "clicks", "--log", url)
    assert 'time_format = "%d.%m.%Y %H:%M"' in shown and 'key = "ignore"' in shown and 'topic = "clicks"' in shown
    config = mapped(tmp_path, "clicks", "--log", url)
    with open_log(url) as log:
        values = [value for p in range(2) for value in log.read(_all(log, p)).values]
        announce_mapping(config, log)
    found = make_decoder(config.events, config.actions).decode(values, [b"other"] * len(values))
    assert set(zip(found.events.users, found.events.items, found.events.actions, strict=True)) == {(b"7", "x", 3)}
    assert len(found.events) == 20


def _all(log: EventLog, partition: int) -> Any:
    from stream.log.base import OffsetRange

    return OffsetRange("clicks", partition, 0, log.end_offsets("clicks")[partition])


def test_what_is_not_sure_is_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"uid": 1, "session_id": "a", "when": "?", "sku": 3, "event": name} for name in ("view", "share", "share")]
    path.write_text("\n".join(map(json.dumps, rows)))
    shown = run_command(app, "map", path)
    assert 'user = "uid"  # or session_id' in shown
    assert '# ts = ""  # not found among session_id, when' in shown
    assert '# "share" = ""' in shown


def test_a_mapping_that_does_not_fit_the_topic_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    record = {"buyer": {"id": 7}, "product": {"sku": "x"}, "ts": TS, "price": 2.5}
    with open_log(f"file://{tmp_path / 'log'}") as log:
        fill(log, "clicks", [(None, record)] * 3)

        def refused(text: str) -> str:
            path = tmp_path / "bad.toml"
            path.write_text(f'[events]\ntopic = "clicks"\nkey = "ignore"\n{text}')
            with pytest.raises(ConfigError) as caught:
                announce_mapping(load_config(path), log)
            assert "\n" not in str(caught.value)
            return str(caught.value)

        good = 'user = "buyer.id"\nitem = "product.sku"\n'
        assert refused('user = "buyer.id"\nitem = "product.sk"') == (
            'events.item = "product.sk": no such path in the first 3 records; the nearest is product.sku'
        )
        assert "events.value" in refused(good + 'value = "prize"') and "price" in refused(good + 'value = "prize"')
        assert "nearest is debezium" in refused('preset = "debezum"')
        assert "has this path too" in refused('user = "buyer.id"\nitem = "buyer.id"')
        assert "none of the first 3 records has kind = view" in refused(good + 'where = { kind = "view" }')


def test_the_simulated_shop_refuses_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[events]\nuser = "u"')
    with pytest.raises(ConfigError, match="leave the section"):
        run_command(app, "simulate", "--config", path, "--log", tmp_path / "log", "--limit", "1")
