"""A store that is being restored is not merged over and over; once it is read, it soon consists of few files."""

from pathlib import Path

from tables.store.rocksdb import LOADING_AFTER, YOUNG_FILES, Memory, RocksEngine
from tests.worlds.waiting import eventually

FAMILIES = ("early", "late")
FLUSHES = 3 * YOUNG_FILES


def young_files(engine: RocksEngine, family: str) -> int:
    return number_of(engine, family, "rocksdb.num-files-at-level0")


def is_merging(engine: RocksEngine, *families: str) -> bool:
    """Whether files are merged now, or are waiting for it."""
    properties = ("rocksdb.num-running-compactions", "rocksdb.compaction-pending")
    return any(number_of(engine, family, name) for family in families for name in properties)


def number_of(engine: RocksEngine, family: str, name: str) -> int:
    return int(engine._families[family].property_value(name))


def write(engine: RocksEngine, families: tuple[str, ...], number: int) -> None:
    batch = engine.batch()
    for family in families:
        batch.put_all(family, b"k", [b"%d" % number, b"x"], [b"value", b"%d" % number])
    engine.write(batch)


def test_files_gather_while_a_store_is_restored_and_are_merged_when_it_is_read(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path / "db", Memory(8 * 1024 * 1024))
    engine.create("early")
    for number in range(LOADING_AFTER):
        write(engine, ("early",), number)
    engine.create("late")
    for number in range(LOADING_AFTER, LOADING_AFTER + FLUSHES):
        write(engine, FAMILIES, number)
        engine.flush()
    assert not is_merging(engine, *FAMILIES)  # it would have begun with the fourth file
    assert [young_files(engine, family) for family in FAMILIES] == [FLUSHES, FLUSHES]

    last = b"%d" % (LOADING_AFTER + FLUSHES - 1)
    assert [engine.get(family, [b"kx", b"k0", b"k" + last]) for family in FAMILIES] == [
        [last, b"value", b"value"], [last, None, b"value"],
    ]  # fmt: skip
    eventually(lambda: all(young_files(engine, family) < YOUNG_FILES for family in FAMILIES))
    assert [engine.get(family, [b"kx"]) for family in FAMILIES] == [[last], [last]]
    engine.close()


def test_a_store_that_is_read_as_it_is_written_has_few_files_all_the_time(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path / "db", Memory(8 * 1024 * 1024))
    engine.create("early")
    for number in range(LOADING_AFTER + FLUSHES):
        engine.get("early", [b"kx"])
        write(engine, ("early",), number)
        if number >= LOADING_AFTER:
            engine.flush()
    eventually(lambda: young_files(engine, "early") < YOUNG_FILES)
    engine.close()


def test_files_that_are_ingested_gather_from_the_first_on(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path / "db", Memory(8 * 1024 * 1024))
    engine.create("early")
    levels = 7  # a file goes to the lowest level on which none has keys like its own, so the first ones are not at level 0
    for number in range(FLUSHES + levels):
        engine.ingest("early", [(b"k%d" % number, b"value"), (b"kx", b"%d" % number), (b"l", b"")])
    assert not is_merging(engine, "early")
    assert young_files(engine, "early") > YOUNG_FILES
    last = b"%d" % (FLUSHES + levels - 1)
    assert engine.get("early", [b"kx", b"k0", b"k" + last, b"k"]) == [last, b"value", b"value", None]
    eventually(lambda: young_files(engine, "early") < YOUNG_FILES)
    assert engine.get("early", [b"kx"]) == [last]
    engine.close()
