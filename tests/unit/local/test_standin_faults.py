"""Failures to come of the warehouse's stand-in: which strikes what, and which are taken back."""

from app.local.redshift.faults import Fault, Faults, WarehouseFault

URL = "s3://b/data/redirects/dt=2026-01-01/hour=00/1-0-3-ab.deflate.avro"


def test_a_file_stays_unreadable_and_only_as_many_as_told_are():
    faults = Faults()
    assert not faults.is_unreadable(URL)
    faults.add(Fault(WarehouseFault.UNREADABLE))
    assert not faults.is_unreadable("s3://b/loads/x/redirects.manifest")
    assert faults.is_unreadable(URL)
    assert faults.is_unreadable(URL)
    assert not faults.is_unreadable(URL.replace("1-0-3", "1-0-4"))


def test_an_unreadable_file_is_no_statement():
    faults = Faults()
    faults.add(Fault(WarehouseFault.UNREADABLE, statement="."))
    assert faults.take("COPY x FROM 's3://b/data/y'") is None
    assert faults.is_unreadable(URL)


def test_a_failure_can_take_the_place_of_those_to_come_but_not_of_files():
    faults = Faults()
    for kind in (WarehouseFault.DISK_FULL, WarehouseFault.UNREADABLE, WarehouseFault.REFUSE):
        faults.add(Fault(kind))
    faults.add(Fault(WarehouseFault.DROP_AFTER_COMMIT, instead=True))
    assert faults.take("", WarehouseFault.REFUSE) is None
    assert faults.take("COPY x", WarehouseFault.DISK_FULL) is None
    assert faults.take("COMMIT", WarehouseFault.DROP_AFTER_COMMIT) is not None
    assert faults.is_unreadable(URL)
