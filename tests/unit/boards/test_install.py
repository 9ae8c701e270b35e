"""`make setup` provides promtool without root; where it cannot, it says what is missing and does not fail."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.worlds.boards import ROOT

BASH = shutil.which("bash") or "bash"
TOOLS = ("mkdir", "rm", "ln", "touch", "id", "mv")
PROGRAMS = ("promtool", "prometheus")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs that is the whole PATH: no package manager."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (programs / tool).symlink_to(found)
    return programs


def install(machine: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "compose" / "install-promtool.sh"
    return subprocess.run(
        [BASH, script, folder], env={"PATH": str(machine)}, capture_output=True, text=True, check=False
    )  # fmt: skip


def put(machine: Path, name: str, text: str) -> None:
    (machine / name).write_text(f"#!{BASH}\n{text}\n")
    (machine / name).chmod(0o755)


def test_without_a_package_manager_it_says_what_is_missing(machine: Path, tmp_path: Path) -> None:
    done = install(machine, tmp_path / "promtool")
    assert done.returncode == 0
    assert "promtool and prometheus are missing" in done.stderr
    assert not (tmp_path / "promtool" / "installed").exists(), "the next `make setup` tries again"


def test_a_machine_that_has_them_gets_links(machine: Path, tmp_path: Path) -> None:
    for name in PROGRAMS:
        put(machine, name, "true")
    done = install(machine, tmp_path / "promtool")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "promtool" / "installed").exists()
    assert [(tmp_path / "promtool" / name).resolve() for name in PROGRAMS] == [machine / name for name in PROGRAMS]


def test_without_lists_of_packages_it_fetches_lists_of_its_own_and_unpacks_the_package(
    machine: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "promtool"
    put(
        machine,
        "apt-get",
        f"""
case "$*" in
  *update) touch {tmp_path}/updated; [[ "$*" == *"Dir::State::Lists={folder}/apt/lists"* ]] ;;
  *download*) [[ -e {tmp_path}/updated ]] && touch prometheus_1.deb ;;
esac""",
    )
    put(
        machine,
        "dpkg",
        """
[[ "$1" == -x && "$2" == prometheus_1.deb ]] && mkdir -p "$3/usr/bin"
for name in promtool prometheus; do echo "#!$BASH" > "$3/usr/bin/$name"; /bin/chmod +x "$3/usr/bin/$name"; done""",
    )
    done = install(machine, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(file.name for file in folder.iterdir()) == ["installed", "prometheus", "promtool"]


def test_a_package_that_cannot_be_fetched_is_missing(machine: Path, tmp_path: Path) -> None:
    put(machine, "apt-get", "exit 100")
    put(machine, "dpkg", "exit 1")
    done = install(machine, tmp_path / "promtool")
    assert done.returncode == 0
    assert "promtool and prometheus are missing" in done.stderr
    assert not (tmp_path / "promtool" / "installed").exists()
