"""Panels of one pattern: rates of counters, counts of an hour, quantiles of histograms."""

from typing import Final

from app.local.boards.board import Limit, Panel, Query, Unit

WINDOW: Final = "$__rate_interval"
"""Grafana's: at least four scrapes."""
ANY_IS_BAD: Final = (Limit(1, "red"),)


def legend(label: str) -> str:
    """The name of a line: the value of a label."""
    return f"{{{{{label}}}}}"


def rate(metric: str, *labels: str) -> str:
    """The rate of a counter, summed over processes."""
    return f"sum{_by(labels)} (rate({metric}[{WINDOW}]))"


def mean(metric: str, *labels: str) -> str:
    """The mean of a histogram."""
    return f"{rate(metric + '_sum', *labels)} / {rate(metric + '_count', *labels)}"


def quantile(metric: str, share: float, *labels: str) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(metric + '_bucket', *labels, 'le')})"


def rates(title: str, metric: str, label: str, unit: Unit = Unit.PER_SECOND) -> Panel:
    """The rates of a counter by a label, one on top of the other."""
    return Panel(title, [Query(rate(metric, label), legend(label))], unit, stacked=True)


def plain_rates(title: str, unit: Unit = Unit.PER_SECOND, **metrics: str) -> Panel:
    """The rates of counters without labels. Args: metrics: the name of a line, with _ for a space -> the counter."""
    return Panel(title, [Query(rate(metric), name.replace("_", " ")) for name, metric in metrics.items()], unit)


def in_an_hour(title: str, metric: str, label: str, *, help_: str = "", width: int = 8) -> Panel:
    """How often something happened in an hour, by a label."""
    counted = f"sum by ({label}) (increase({metric}[1h]))"
    return Panel(title, [Query(counted, legend(label))], width=width, help=help_, limits=ANY_IS_BAD)


def plain_in_an_hour(title: str, *, help_: str = "", width: int = 8, **metrics: str) -> Panel:
    """The same of counters without labels."""
    queries = [Query(f"sum(increase({metric}[1h]))", name.replace("_", " ")) for name, metric in metrics.items()]
    return Panel(title, queries, width=width, help=help_, limits=ANY_IS_BAD)


def seconds(title: str, metric: str, *, help_: str = "", width: int = 8) -> Panel:
    """The times of a histogram: of half, and of 99 in 100."""
    queries = [Query(quantile(metric, 0.5), "half"), Query(quantile(metric, 0.99), "99 of 100")]
    return Panel(title, queries, Unit.SECONDS, width=width, help=help_)


def means(title: str, metric: str, label: str, unit: Unit = Unit.SECONDS) -> Panel:
    """The means of a histogram by a label."""
    return Panel(title, [Query(mean(metric, label), legend(label))], unit)


def level(title: str, metric: str, label: str = "instance", unit: Unit = Unit.COUNT, *, how: str = "sum") -> Panel:
    """A gauge by a label."""
    return Panel(title, [Query(f"{how} by ({label}) ({metric})", legend(label))], unit)


def age(title: str, time_s: str, label: str, limits: tuple[Limit, ...] = (), *, help_: str = "") -> Panel:
    """How long ago moments are. Args: time_s: an expression of Unix seconds by a label."""
    return Panel(title, [Query(f"time() - {time_s}", legend(label))], Unit.SECONDS, limits=limits, help=help_)


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
