"""docker-compose.yml and the Dockerfile, checked without a container engine: schema, command lines, files."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from intentstream.cli.app import app
from intentstream.config import load_config

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "intentstream")
TOKEN = "a-token-for-the-tests"


def config_text() -> str:
    """The configuration file of our services, the variable put in as compose does."""
    text: str = COMPOSE["configs"]["intentstream"]["content"]
    return re.sub(r"\$\{INTENTSTREAM_TOKEN:\?[^}]+\}", TOKEN, text)


def command_lines() -> dict[str, list[str]]:
    """Every `intentstream` command line in the file: the services' own, and their health checks."""
    lines = {name: list(SERVICES[name]["command"]) for name in OURS}
    for name, service in SERVICES.items():
        test = service.get("healthcheck", {}).get("test", [])
        if test[1:2] == ["intentstream"]:
            lines[f"{name} health"] = test[2:]
    return lines


def test_the_file_keeps_to_the_specification() -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.validate(COMPOSE)
    broken = {**COMPOSE, "services": {"worker": {"comand": []}}}
    with pytest.raises(jsonschema.ValidationError, match="comand"):
        validator.validate(broken)


@pytest.mark.parametrize("name", command_lines())
def test_a_command_line_parses(name: str) -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("intentstream", command_lines()[name])
    words = [*context._protected_args, *context.args]
    found, command, rest = group.resolve_command(context, words)
    parsed = command.make_context(found, rest, parent=context)
    assert parsed.params["log"] == "kafka://kafka:9092"
    assert str(parsed.params["config"]) == "/etc/intentstream.toml"


def test_every_service_of_ours_is_there_with_its_command() -> None:
    assert OURS == ["monitor", "simulator", "topics", "worker"]
    assert [SERVICES[name]["command"][0] for name in OURS] == ["monitor", "simulate", "topics", "worker"]


def test_the_configuration_in_it_is_valid(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(config_text())
    config = load_config(tmp_path / "config.toml", log_url="kafka://kafka:9092")
    assert config.monitor.token == TOKEN
    assert config.monitor.host == "0.0.0.0"
    assert config.log.kafka.replication_factor == 1


def mounts() -> list[tuple[str, str, str]]:
    return [(name, *text.split(":")[:2]) for name, service in SERVICES.items() for text in service.get("volumes", [])]


def test_every_file_that_is_mounted_exists_and_every_volume_is_declared() -> None:
    for name, source, _ in mounts():
        if source.startswith("."):
            assert (ROOT / source).exists(), f"{name}: {source}"
        else:
            assert source in COMPOSE["volumes"], f"{name}: {source}"
    assert {source for _, source, _ in mounts()} >= set(COMPOSE["volumes"])


def test_what_is_named_elsewhere_is_declared() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for secret in service.get("secrets", []):
            assert (secret if isinstance(secret, str) else secret["source"]) in COMPOSE["secrets"]
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"]


def test_prometheus_and_grafana_find_each_other() -> None:
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert scrape["static_configs"] == [{"targets": ["monitor:8050"]}]
    assert scrape["authorization"]["credentials_file"] == SERVICES["prometheus"]["secrets"][0]["target"]
    (source,) = (ROOT / "deploy/grafana/provisioning/datasources").glob("*.yml")
    assert yaml.safe_load(source.read_text())["datasources"][0]["url"] == "http://prometheus:9090"


def test_every_service_that_stays_is_watched_and_comes_back() -> None:
    for name, service in SERVICES.items():
        assert "restart" in service, name
        if name not in ("topics", "simulator"):  # one ends, the other only has to produce
            assert "healthcheck" in service, name
        assert service["image"] == "intentstream" or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_the_image_has_what_the_services_need() -> None:
    lines = (ROOT / "Dockerfile").read_text()
    folders = re.search(r"^VOLUME (.+)$", lines, re.M)
    assert folders is not None
    made = re.search(r"mkdir -p ((?:/\S+ ?)+)", lines)
    assert made is not None
    wanted = {target for name, _, target in mounts() if name in OURS}
    assert set(json.loads(folders[1])) == set(made[1].split()) == wanted  # else a new volume belongs to root
    assert re.search(r"^USER (?!0|root)\S+", lines, re.M)
    assert 'ENTRYPOINT ["intentstream"]' in lines
    assert "--constraint constraints.txt" in lines
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", lines, re.M):
        for path in copied.split():
            assert (ROOT / path).exists(), path
            assert f"!{path}" in ignore, path
