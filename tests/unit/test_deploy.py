"""deploy/, checked without the servers: every query parses, every metric and label that it names exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import promql_parser as promql
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from monitor.config import MonitorConfig
from monitor.metrics import COUNTERS, GAUGES
from monitor.service import Service
from monitor.view.records import decode_report
from stream.log import open_log
from stream.log.base import Message
from tests.unit.monitor import feed

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/intentstream.json").read_text())
PROMETHEUS_OWN = {"up", "ALERTS"}  # made by Prometheus itself
OF_THE_TARGET = {"job", "instance"}  # labels put on by Prometheus
UNITS = ("seconds", "bytes", "ratio", "records", "info", "total", "fds")
UNITLESS = re.compile(
    r"intentstream_(worker_(up|state)|events_per_second|items|loss|intents(_\w+)?|drift_episodes_open|http_streams)"
)
VARIABLES = {"$__rate_interval": "5m", "$worker": ".*"}


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What /metrics answers when every figure that a worker can report is there."""
    folder = tmp_path_factory.mktemp("deploy")
    with open_log(f"file://{folder}/log") as log:
        feed.create(log)
        made = feed.Feed(start_ms=1_767_225_600_000)
        log.append(feed.history(made, 20))
        raw = made.metrics().value
        assert raw is not None
        report = decode_report(raw)
        accuracy = {f"{kind}_{m}": 0.1 for kind in ("served", "prequential") for m in ("hr@10", "ndcg@10")}
        full = msgspec.structs.replace(
            report, counters=dict.fromkeys(COUNTERS, 1), gauges=report.gauges | dict.fromkeys(GAUGES, 1.0) | accuracy
        )
        log.append([Message("stream-metrics", b"worker-0", feed.encode(full), full.ts)])
        with open_log(f"file://{folder}/log", mode="reader") as reader:
            service = Service(reader, MonitorConfig(), folder / "view", None)
            service.reader._place()
            service.reader.turn()
            service.reader._measure()
            service.telemetry.observe("/recommendations/{user:path}", "GET", 200, 0.01)
            service.telemetry.appended(1, 1)
            text = service.telemetry.exposition().decode()
            service.view.close()
    return text


@pytest.fixture(scope="module")
def families(exposition: str) -> dict[str, Metric]:
    found = {one.name: one for one in text_string_to_metric_families(exposition)}
    return {name: one for name, one in found.items() if not name.endswith("_created")}


@pytest.fixture(scope="module")
def series(families: dict[str, Metric]) -> dict[str, tuple[str, set[str]]]:
    """Type and labels by the name that a query uses."""
    found: dict[str, tuple[str, set[str]]] = {}
    for family in families.values():
        for sample in family.samples:
            labels = found.setdefault(sample.name, (family.type, set()))[1]
            labels |= set(sample.labels)
    return found


def dashboard_queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for note in DASHBOARD["annotations"]["list"]:
        yield f"annotation {note['name']}", note["expr"]


QUERIES = [(f"alert {rule['alert']}", rule["expr"]) for rule in RULES] + list(dashboard_queries())


def parsed(query: str) -> promql.Expr:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, "a variable of Grafana that this test does not know"
    return promql.parse(query)


def selectors(query: str) -> list[tuple[promql.VectorSelector, str]]:
    """Every selector of a query with the function that takes its range, "" when it has none."""
    found: list[tuple[promql.VectorSelector, str]] = []
    ranged: list[str] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.Call):
            for arg in node.args:
                if isinstance(arg, promql.MatrixSelector):
                    ranged.append(node.func.name)
        elif isinstance(node, promql.MatrixSelector):
            found.append((node.vector_selector, ranged.pop()))
        elif isinstance(node, promql.VectorSelector):
            found.append((node, ""))

    promql.walk(parsed(query), visit)
    ranges = {str(one) for one, function in found if function}
    return [(one, function) for one, function in found if function or str(one) not in ranges]


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_every_query_asks_for_what_the_monitor_exports(
    where: str, query: str, series: dict[str, tuple[str, set[str]]]
) -> None:
    found = selectors(query)
    assert found
    for selector, function in found:
        name = selector.name or ""
        if name in PROMETHEUS_OWN:
            continue
        assert name in series, f"{where}: there is no metric {name}"
        kind, labels = series[name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels | OF_THE_TARGET, f"{where}: {name} has no label {matcher.name}"
        if function in ("rate", "increase"):
            assert kind in ("counter", "histogram"), f"{where}: {function} of the {kind} {name}"
        elif function:
            assert kind == "gauge", f"{where}: {function} of the {kind} {name}"


def test_names_units_and_types_are_those_of_prometheus_conventions(families: dict[str, Metric]) -> None:
    assert len(families) > 50
    for name, family in families.items():
        assert family.documentation, f"{name} has no help text"
        assert family.type in ("counter", "gauge", "histogram"), name
        if name.startswith("process_"):
            continue
        assert re.fullmatch(r"intentstream(_[a-z0-9]+)+", name), name
        assert not name.endswith(("_total", "_ms", "_milliseconds", "_percent", "_kb", "_count", "_sum", "_bucket"))
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter" and "created" not in sample.name)
            assert not {"user", "intent", "item", "path", "quantile"} & set(sample.labels), sample
        if family.type != "counter":
            assert name.endswith(UNITS) or UNITLESS.fullmatch(name), f"{name} does not say its unit"


def test_the_documentation_lists_every_metric_and_no_other(families: dict[str, Metric]) -> None:
    page = (ROOT / "docs/monitor.md").read_text()
    listed = set(re.findall(r"^\| `(intentstream_\w+)` \|", page, re.M))
    exported = {name + ("_total" if one.type == "counter" else "") for name, one in families.items()}
    assert listed == {name for name in exported if not name.startswith("process_")}


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    handbook = (ROOT / "docs/operations.md").read_text()
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names)) >= 10
    for rule in RULES:
        name = rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert {"summary", "description"} <= rule["annotations"].keys(), name
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert f"\n### {name}\n" in handbook, f"docs/operations.md has no section on {name}"
    for name in re.findall(r"^### ([A-Z]\w+)$", handbook, re.M):
        assert name in names, f"docs/operations.md explains {name}, which no rule raises"


def test_the_dashboard_is_one_that_grafana_can_load() -> None:
    datasource = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = datasource["datasources"][0]["uid"]
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"] and panel["fieldConfig"]["defaults"]["unit"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {uid}
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {name[1:] for name in VARIABLES if not name.startswith("$__")}


def test_the_servers_are_told_of_each_other() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    job = config["scrape_configs"][0]
    assert config["rule_files"] == ["rules.yml"] and (DEPLOY / "prometheus/rules.yml").exists()
    assert job["static_configs"] == [{"targets": ["monitor:8050"]}] and job["metrics_path"] == "/metrics"
    assert job["authorization"] == {"type": "Bearer", "credentials_file": "/etc/prometheus/token"}
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/intentstream.yml").read_text())
    assert provider["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("REQUIRE_PROMTOOL") == "1":
            pytest.fail("REQUIRE_PROMTOOL=1, but there is no promtool on this machine")
        pytest.skip("no promtool on this machine (Debian: apt-get install prometheus): its checks are skipped")
    return found


def ran(*command: str, given: str = "") -> None:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not (done.stderr and "check" in command), done.stdout + done.stderr


def test_promtool_takes_rules_and_configuration(promtool: str, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "prometheus")
    (tmp_path / "token").write_text("token")
    config = tmp_path / "prometheus/prometheus.yml"
    config.write_text(config.read_text().replace("/etc/prometheus/token", str(tmp_path / "token")))
    ran(promtool, "check", "config", str(config))
    ran(promtool, "check", "rules", str(tmp_path / "prometheus/rules.yml"))


def test_promtool_finds_nothing_to_say_about_the_metrics(promtool: str, exposition: str) -> None:
    ran(promtool, "check", "metrics", given=exposition)


def test_alerts_fire_when_they_should_and_not_otherwise(promtool: str, tmp_path: Path) -> None:
    tests = tmp_path / "rules_test.yml"
    cases = (Path(__file__).parent / "alert_cases.yml").read_text()
    tests.write_text(cases.replace("[RULES]", f"[{DEPLOY / 'prometheus/rules.yml'}]"))
    ran(promtool, "test", "rules", str(tests))
