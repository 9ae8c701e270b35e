"""A histogram of many equal values says the same as one that takes them one by one."""

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from app.shell.histogram import CountedHistogram


def test_it_exports_what_prometheus_own_histogram_exports() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counted = CountedHistogram("h_seconds", "words", ("flow",), (1, 2.5, 10), ours)
    plain = Histogram("h_seconds", "words", ["flow"], buckets=(1, 2.5, 10), registry=theirs)
    for flow, value, count in (("a", 0.5, 3), ("a", 2.5, 2), ("b", 99, 4)):
        counted.observe((flow,), value, count)
        for _ in range(count):
            plain.labels(flow).observe(value)
    lines = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == lines


def test_it_has_a_name_before_its_first_value() -> None:
    registry = CollectorRegistry()
    CountedHistogram("h_seconds", "words", (), (1,), registry)
    assert "# TYPE h_seconds histogram" in generate_latest(registry).decode()
