"""Where compiled kernels are kept, and when they are out of date."""

from pathlib import Path

import pytest

from app.kernels.cache import digest_of, writable


def test_a_folder_is_made_and_used(tmp_path: Path) -> None:
    assert writable(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert (tmp_path / "new" / "folder").is_dir()


def test_a_folder_that_cannot_be_written_is_copied() -> None:
    locked = Path("/proc/sys/kernel/random")  # root can write to no folder of it
    own = writable(locked)
    assert own != locked
    assert {file.name for file in own.iterdir()} == {file.name for file in locked.iterdir()}
    assert own.stat().st_mode & 0o777 == 0o700, "nobody else puts code there"


def test_a_place_that_cannot_be_a_folder_gets_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    own = writable(tmp_path / "file" / "folder")
    assert list(own.iterdir()) == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of kernels: `top` imports `middle`, that imports the folder `deep`; `other` stands alone."""
    (tmp_path / "deep").mkdir()
    for name, text in {
        "top.py": "from app.kernels.middle import piece\n", "middle.py": "from app.kernels.deep import loops\n",
        "deep/loops.py": "LOOPS = 1\n", "other.py": "OTHER = 1\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    return tmp_path


def digest(package: Path) -> str:
    return digest_of(package / "top.py", package)


@pytest.mark.parametrize("changed", ["top.py", "middle.py", "deep/loops.py"])
def test_a_changed_part_makes_the_kernels_of_all_that_import_it_stale(package: Path, changed: str) -> None:
    before = digest(package)
    (package / changed).write_text((package / changed).read_text() + "# changed\n")
    assert digest(package) != before


def test_a_file_that_is_not_imported_makes_nothing_stale(package: Path) -> None:
    before = digest(package)
    (package / "other.py").write_text("OTHER = 2\n")
    assert digest(package) == before


def test_a_copy_of_the_code_has_the_same_kernels(package: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = digest(package)
    assert digest(package.rename(tmp_path_factory.mktemp("elsewhere") / "copy")) == before


def test_code_with_and_without_checks_of_bounds_is_kept_apart(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_BOUNDSCHECK", raising=False)
    plain = digest(package)
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    assert digest(package) != plain
