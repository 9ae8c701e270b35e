"""Where compiled kernels are kept."""

from pathlib import Path

import pytest

from app.kernels.compiled import cache_folder, writable


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


def test_code_with_and_without_checks_of_bounds_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_BOUNDSCHECK", raising=False)
    plain = cache_folder()
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    assert cache_folder() != plain
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/elsewhere")
    assert cache_folder().parent == Path("/elsewhere")
