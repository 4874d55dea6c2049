"""What is deployed is valid, and says what the server needs: checked by the tools of each kind."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from onward.cli.serve import serve

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None, strict=False)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read(DEPLOY / "onward.service")
    return found


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    """Every rule, but for the pinned versions of Debian's packages."""
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([program, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_copies_what_a_build_needs_and_does_not_run_as_root() -> None:
    """Each source exists; the package builds from them (see pyproject)."""
    text = (DEPLOY / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    assert re.search(r"^USER \d+$", text, re.MULTILINE)


def test_compose_names_only_what_it_defines_and_publishes_on_loopback() -> None:
    """Volumes, dependencies, the Dockerfile; no password is in it."""
    found = compose()
    services = found["services"]
    assert set(services) == {"database", "onward"}
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in found["volumes"] or source.startswith(("$", "."))
    assert set(services["onward"]["depends_on"]) == {"database"}
    build = services["onward"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert all(port.startswith("127.0.0.1:") for port in services["onward"]["ports"])
    assert services["onward"]["init"] is True
    assert "${POSTGRES_PASSWORD:?" in services["database"]["environment"]["POSTGRES_PASSWORD"]


def test_every_setting_that_is_deployed_is_one_of_the_servers() -> None:
    """Options of the unit and the image, variables of the compose file."""
    options = {name for option in serve.params for name in option.opts}
    variables = {str(option.envvar) for option in serve.params if isinstance(option, click.Option)}
    command = re.search(r"^CMD \[(.+)\]$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert command is not None
    used = re.findall(r"--[a-z-]+", command.group(1) + unit()["Service"]["ExecStart"])
    assert used
    assert set(used) <= options
    named = [
        name
        for name in compose()["services"]["onward"]["environment"]
        if name.startswith("ONWARD_SERVER_")
    ]
    assert named
    assert set(named) <= variables


def test_a_restart_of_the_service_leaves_agents_alone() -> None:
    """Otherwise every upgrade would interrupt every training."""
    assert unit()["Service"]["KillMode"] == "process"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """With programs that exist in the place of the deployed ones."""
    text = (DEPLOY / "onward.service").read_text()
    text = text.replace("/opt/onward/bin/onward", str(shutil.which("true")))
    text = text.replace("User=onward\nGroup=onward\n", "")
    (tmp_path / "onward.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "onward.service"],
        capture_output=True, text=True,
    )  # fmt: skip
    said = [
        line
        for line in done.stderr.splitlines()
        # Older ones than 254 say that they ignore it, as the unit's comment does.
        if "onward.service" in line and "'DelegateSubgroup'" not in line
    ]
    assert (done.returncode, said) == (0, [])


def _engine_runs() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _engine_runs(), reason="there is no container engine here")
@pytest.mark.timeout(1800)
def test_the_image_builds_and_serves() -> None:
    """Where an engine is."""
    build = ["docker", "build", "-q", "-f", DEPLOY / "Dockerfile", "--build-arg",
             "EXTRAS=server,postgresql", ROOT]  # fmt: skip
    image = subprocess.run(build, check=True, capture_output=True, text=True).stdout.strip()
    said = subprocess.run(
        ["docker", "run", "--rm", image, "onward", "--version"], check=True, capture_output=True,
        text=True,
    ).stdout  # fmt: skip
    assert said.startswith("onward ")
