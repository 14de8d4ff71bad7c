"""The producers of examples/ put events where the worker's own partitioner would; each runs where its client is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.log import open_log
from stream.log.base import OffsetRange, TopicSpec
from stream.log.partitioner import partition_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
PRODUCERS = Path(__file__).parents[2] / "examples/producers"
PARTITIONS = 5
LINES = {
    user: json.dumps({"user": user, "item": "lamp", "ts": 1_700_000_000_000 + n}, ensure_ascii=False)
    for n, user in enumerate([*(f"u{n}" for n in range(60)), "Zoë", "用户", "a user"])
}


def python(file: str, module: str) -> list[str]:
    pytest.importorskip(module)
    return [sys.executable, file]


def java(file: str) -> list[str]:
    libs = Path(os.environ.get("KAFKA_HOME", "")) / "libs"
    if shutil.which("java") is None or not libs.is_dir():
        pytest.skip("no java, or KAFKA_HOME has no libs/ with Kafka's Java client")
    return ["java", "-cp", f"{libs}/*", file]


def node(file: str) -> list[str]:
    found = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=False) if _has("npm") else None
    folder = os.environ.get("NODE_MODULES") or (found.stdout.strip() if found else "")
    if not _has("node") or not (Path(folder) / "kafkajs").is_dir():
        pytest.skip("no node, or no kafkajs in NODE_MODULES or npm's global folder")
    return ["node", file, folder]


def kcat(file: str) -> list[str]:
    if not _has("kcat"):
        pytest.skip("no kcat")
    return ["sh", file]


def _has(program: str) -> bool:
    return shutil.which(program) is not None


COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "produce_kafka_python.py": lambda file: python(file, "kafka"),
    "produce_confluent_kafka.py": lambda file: python(file, "confluent_kafka"),
    "ProduceEvents.java": java,
    "produce_kafkajs.mjs": node,
    "produce_kcat.sh": kcat,
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_producer_puts_every_user_into_the_partition_of_murmur2(name: str, kafka_url: str, tmp_path: Path) -> None:
    topic = f"produced-by-{name}"
    file = shutil.copy(PRODUCERS / name, tmp_path)
    command = COMMANDS[name](str(file))
    if name.endswith(".mjs"):  # node finds modules beside the file only
        (tmp_path / "node_modules").symlink_to(command.pop())
    with open_log(kafka_url) as log:
        log.create_topics([TopicSpec(topic, PARTITIONS)])
        lines = "".join(f"{user}\t{event}\n" for user, event in LINES.items())
        done = subprocess.run(
            [*command, kafka_url.removeprefix("kafka://"), topic],
            input=lines.encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        found = {}
        for partition, end in enumerate(log.end_offsets(topic)):
            batch = log.read(OffsetRange(topic, partition, 0, end))
            for key, value in zip(batch.keys, batch.values, strict=True):
                assert key is not None and value is not None
                assert partition == partition_of(key, PARTITIONS), key
                found[key.decode()] = value.decode()
    assert found == LINES


def test_every_producer_is_tried() -> None:
    assert sorted(COMMANDS) == sorted(path.name for path in PRODUCERS.iterdir())
