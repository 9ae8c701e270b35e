"""The compose stack, checked without an engine: names, versions, commands and settings must fit the project."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from app.apps import ROLES
from app.cli.main import app as command_line
from app.settings import Settings, read_settings

FOLDER = Path(__file__).parents[3] / "compose"
STACK: dict[str, Any] = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
ENVIRONMENT = dict(
    line.split("=", 1) for line in (FOLDER / ".env").read_text().splitlines() if line and not line.startswith("#")
)
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"init"}
EXPECTED = {
    "redpanda", "console", "aws", "postgres", "warehouse", "init", "collector", "bridge", "etl", "sink", "delivery", "audit",
}  # fmt: skip
PROGRAMS = {script.name: script.value for script in importlib.metadata.entry_points(group="console_scripts")}


def module_commands() -> Iterator[tuple[str, str, list[str]]]:
    """(service, module, arguments) of every service that runs `python -m module`."""
    for name, service in OURS.items():
        if service["command"][:2] == ["python", "-m"]:
            yield name, service["command"][2], service["command"][3:]


def test_every_part_of_the_pipeline_is_a_service() -> None:
    assert set(SERVICES) >= EXPECTED
    assert set(ROLES) <= set(SERVICES)


def test_images_are_pinned_and_ours_are_built_from_a_pinned_one() -> None:
    froms = re.findall(r"^FROM (\S+)$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    images = [service["image"] for service in SERVICES.values()] + froms
    assert froms
    for image in images:
        assert re.search(r":v?\d+\.\d+[\w.-]*$", image), f"{image} names no version"


def test_the_dockerfile_copies_what_exists() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert {"app", "agents", "tables"} <= set(sources)
    allowed = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    for source in sources:
        assert (FOLDER.parent / source).exists(), source
        assert f"!{source}" in allowed, f"{source} does not reach the build"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_a_health_check_or_ends(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert "healthcheck" not in service
    else:
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_services_wait_for_what_exists_and_can_be_waited_for() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, f"{name} waits for {needed}"
            wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how["condition"] == wanted, f"{name} waits for {needed}"


def test_ports_are_published_on_loopback_only_and_once() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.rsplit(":", 1)[0] for port in published}) == len(published)


def test_volumes_are_declared_used_and_not_shared() -> None:
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])]
    named = [source for source in mounts if not source.startswith(".")]
    assert sorted(named) == sorted(STACK["volumes"])
    for source in set(mounts) - set(named):
        assert (FOLDER / source).exists(), source
    for role in ROLES:
        assert SERVICES[role]["volumes"] == [f"{role}:{ENVIRONMENT['INSTREAM_DATA_DIR']}"]


def test_the_environment_names_settings_that_exist_and_validates(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name for name in ENVIRONMENT if not name.startswith("AWS_")}
    assert names <= {f"INSTREAM_{field.upper()}" for field in Settings.model_fields}
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert settings.write_keys == {"demo": "browser", "demo-server": "server"}
    for service in OURS.values():
        assert service["env_file"] == ".env"
        assert "environment" not in service


def test_addresses_lead_to_services_and_their_ports() -> None:
    addresses = [
        urlsplit(ENVIRONMENT["AWS_ENDPOINT_URL"]).netloc,
        urlsplit(ENVIRONMENT["INSTREAM_WAREHOUSE_URL"]).netloc.rpartition("@")[2],
        ENVIRONMENT["INSTREAM_KAFKA"],
    ]
    for address in addresses:
        host, _, port = address.partition(":")
        assert port in " ".join(map(str, SERVICES[host]["command"])), f"{host} does not listen on {port}"
    backend = SERVICES["warehouse"]["command"]
    assert backend[backend.index("--backend") + 1].partition(":")[0] in SERVICES
    assert SERVICES["collector"]["ports"] == [f"127.0.0.1:8000:{ENVIRONMENT['INSTREAM_COLLECTOR_PORT']}"]


def test_prometheus_asks_services_where_they_answer() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]}
    targets = [target for config in jobs["instream"]["static_configs"] for target in config["targets"]]
    assert sorted(targets) == sorted(f"{role}:{ENVIRONMENT['INSTREAM_WEB_PORT']}" for role in (*ROLES, "collector"))
    for config in jobs["instream"]["static_configs"]:
        assert [target.split(":")[0] for target in config["targets"]] == [config["labels"]["role"]]
    assert all(target.split(":")[0] in SERVICES for job in jobs.values() for target in job["static_configs"][0]["targets"])


@pytest.mark.parametrize("name", sorted(set(SERVICES) & {*ROLES, "collector"}))
def test_a_roles_health_check_asks_the_operations_port(name: str) -> None:
    assert f"127.0.0.1:{ENVIRONMENT['INSTREAM_WEB_PORT']}/ready" in SERVICES[name]["healthcheck"]["test"][-1]


def test_every_command_is_a_program_of_the_image() -> None:
    for name, service in OURS.items():
        program, *arguments = service["command"]
        if program == "python":
            assert importlib.util.find_spec(arguments[1]), f"{name}: {arguments[1]}"
        else:
            assert program in PROGRAMS, f"{name}: {program}"
        if program == "faust":
            assert arguments == ["-A", f"app.worker:{name}", "worker", "-l", "info"]
            assert name in ROLES
        if program == "instream":
            known = {command.name or command.callback.__name__ for command in command_line.registered_commands}  # type: ignore[union-attr]
            assert arguments[0] in known


@pytest.mark.parametrize(("name", "module", "arguments"), list(module_commands()), ids=lambda part: str(part)[:20])
def test_every_option_exists(name: str, module: str, arguments: list[str]) -> None:
    options = [argument for argument in arguments if argument.startswith("--")]
    if not options:
        assert name == "collector"
        return
    said = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
    for option in options:
        assert re.search(rf"{option}\b", said.stdout), f"{module} has no {option}"
