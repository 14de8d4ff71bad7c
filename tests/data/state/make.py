"""Write the state folder of the present release, with its log, beside this file; for the tests of later releases.

    python -m tests.data.state.make

makes `format-N.tar.gz` anew, where N is the state format of this release. It holds `config.toml`, `state/` (one
checkpoint), `log/` (the embedded log, with journalled steps after the checkpoint) and `expected.json`: what a later
release must find. Run it when the format changes; never change the file of an earlier format.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from intentstream.config import load_config
from stream.engine.engine import Engine
from stream.engine.migrations import STATE_FORMAT
from stream.log import open_log
from stream.schema import topics
from stream.worker.worker import Worker
from tests.unit.stream.streams import as_messages, events

HERE = Path(__file__).parent
# Only what keeps the folder small: everything else is the release's default, as in a user's folder.
CONFIG = """
[log]
partitions = 2
[engine]
list_len = 5
max_step_records = 64
checkpoint_every_steps = 1000
checkpoint_redo_s = 3600.0
keep_checkpoints = 1
[state]
write_buffer_bytes = 1048576
cache_bytes = 1048576
[learner]
max_len = 10
capacity = 100
recent_pairs = 100
uniform_pairs = 100
[learner.encoder]
hidden = 16
layers = 1
heads = 2
[learner.intents]
count = 4
queue = 64
[learner.identity]
pool = 16
"""


def known(engine: Engine) -> dict[str, Any]:
    """What must survive: histories and lists by user, items, item counts, clocks and positions, as plain data."""
    users: dict[str, Any] = {}
    for partition in range(engine.config.log.partitions):
        for names, records in engine.store.scan(partition):
            for name, record in zip(names, records, strict=True):
                history = engine.learner.item_ids(record["items"])
                users[f"{partition}/{name.decode()}"] = {
                    "items": [item for item in history if item],
                    "ts": [int(ts) for ts in record["ts"] if ts],
                    "list": [item for item in engine.learner.item_ids(record["list"]) if item],
                    "seen_ts": int(record["seen_ts"]),
                    "events": int(record["events"]),
                }
    return {
        "step": engine.step_number,
        "users": users,
        "items": engine.learner.size,
        "popular": engine.recommend(b"nobody", 5).items,
        "clocks": engine.clocks.to_state(),
        "positions": {str(partition): offset for partition, offset in engine.positions.items()},
        "counters": dict(engine.counters),
    }


def make(folder: Path) -> None:
    """Write state, log, configuration and expectation of a short stream into an empty folder."""
    (folder / "config.toml").write_text(CONFIG)
    config = load_config(folder / "config.toml", log_url=f"file://{folder}/log")
    with open_log(config.log.url) as log:
        log.create_topics(topics.topic_specs(config.log.partitions))
        log.append(as_messages(events(300, users=20, items=30)))
        worker = Worker(config, log, folder / "state")
        worker.recover()
        while worker.engine.step_number < 3 and worker.turn():
            pass
        worker.checkpoint()
        expected = {"checkpoint": known(worker.engine)}
        worker.turn()  # this step is in the journal only
        expected["journal"] = known(worker.engine)
        worker.close()
    shutil.rmtree(folder / "state" / "live")
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True))


def main() -> None:
    """Make the folder of this release anew."""
    target = HERE / f"format-{STATE_FORMAT}.tar.gz"
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch))
        with tarfile.open(target, "w:gz") as archive:
            for path in sorted(Path(scratch).iterdir()):
                archive.add(path, path.name)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
