"""The page that an operator keeps open: freshness, the way of a line in seconds, lag, fates, alarms."""

from typing import Final

from app.local.boards.board import Board, Kind, Limit, Panel, Query, Section, Unit
from app.local.boards.queries import ANY_IS_BAD, plain_in_an_hour, quantile, rate, rates, seconds

PROMISE_S: Final = 300
"""Every accepted row is visible within so many seconds."""
LATE: Final = (Limit(240, "orange"), Limit(PROMISE_S, "red"))
STANDS: Final = (Limit(60, "orange"), Limit(PROMISE_S, "red"))
NEEDS_A_PERSON: Final = "held|lost|excess|damaged|dead_lettered|unreadable|other_epoch"
"""Findings of the audit that do not pass by themselves."""
OLDEST: Final = Panel(
    "Oldest batch that is not complete",
    [Query("max(instream_oldest_uncovered_batch_seconds)", "age")],
    Unit.SECONDS,
    width=12,
    help="As the audit's last round saw it. From 900 s on alert OldestBatchLate fires.",
    limits=(Limit(900, "red"),),
)
_KNOWN: Final = 'count by (role) (up{job="instream"})'
_VISIBLE: Final = "instream_received_to_visible_seconds"

_NOW: Final = Section(
    "Now",
    (
        Panel(
            "The warehouse is complete up to, ago",
            [Query("max(instream:freshness:seconds)", "the latest flow")],
            Unit.SECONDS,
            Kind.NUMBER,
            6,
            "Age of the oldest line that is not in the warehouse. A page view waits two minutes for its engagement, and an "
            "idle sink commits once a minute, so 220 s is normal. Above 300 s alert WarehouseLate fires.",
            LATE,
        ),
        Panel(
            "Rows that came late in the last hour",
            [Query("instream:late_rows:ratio_1h", "later than 300 s")],
            Unit.SHARE,
            Kind.NUMBER,
            6,
            "0.1 % is allowed over 30 days. Empty if the hour had no rows.",
            (Limit(0.001, "orange"), Limit(0.0144, "red")),
        ),
        Panel(
            "Processes that are not ready",
            [Query(f"{_KNOWN} - sum by (role) (instream_ready) or {_KNOWN}", "{{role}}")],
            Unit.COUNT,
            Kind.NUMBER,
            6,
            "Processes that wait, and processes that do not answer. `instream status` names the reasons.",
            ANY_IS_BAD,
        ),
        Panel(
            "Batches that need an operator",
            [Query(f'max by (found) (instream_audit_open_batches{{found=~"{NEEDS_A_PERSON}"}})', "{{found}}")],
            Unit.COUNT,
            Kind.NUMBER,
            6,
            "Findings of the audit's last round.",
            ANY_IS_BAD,
        ),
        Panel(
            "Alarms",
            [Query('ALERTS{alertstate="firing"}')],
            Unit.COUNT,
            Kind.TABLE,
            24,
            "Alerts that fire now; the runbook of each is app/runbooks/<alertname>.md. Empty is good.",
        ),
    ),
    height=6,
)

_FRESHNESS: Final = Section(
    "From receipt to the warehouse",
    (
        Panel(
            "Freshness of each flow",
            [Query("instream:freshness:seconds", "{{flow}}")],
            Unit.SECONDS,
            width=12,
            help="Age of the oldest line of the flow that is not in the warehouse.",
            limits=LATE,
        ),
        Panel(
            "Received to visible, 99 of 100 rows",
            [Query(quantile(_VISIBLE, 0.99, "flow"), "{{flow}}")],
            Unit.SECONDS,
            width=12,
            help="How long a reader of the warehouse waits for a row. Rows of page_views include the join.",
            limits=LATE,
        ),
        Panel(
            "Received to visible, half of the rows",
            [Query(quantile(_VISIBLE, 0.5, "flow"), "{{flow}}")],
            Unit.SECONDS,
            width=12,
        ),
        seconds(
            "Of that, the wait for the join",
            "instream_join_wait_seconds",
            help_="Until stream time has passed the join's upper bound: 120 s by default, more while a shard stands.",
            width=12,
        ),
    ),
)

_STAGES: Final = Section(
    "Where lines wait",
    (
        Panel(
            "Lag of each stage in seconds",
            [
                Query("time() - min(max by (shard) (instream_bridge_mark_ms)) / 1000", "bridge"),
                Query("time() - min(max by (partition) (instream_etl_stream_time_seconds))", "etl"),
                Query("time() - min(max by (partition) (instream_sink_stream_time_seconds))", "sink"),
                Query("max(instream:freshness:seconds)", "delivery (the warehouse)"),
            ],
            Unit.SECONDS,
            width=12,
            help="The slowest shard or partition. Each stage includes those before it: the first line that rises names the "
            "stage. An idle sink commits once a minute.",
            limits=STANDS,
        ),
        Panel(
            "Messages before each role",
            [Query("sum by (role, topic) (instream_lag_messages)", "{{role}} on {{topic}}")],
            width=12,
        ),
        OLDEST,
        Panel(
            "Bytes that wait in memory",
            [
                Query("sum(instream_collector_buffered_bytes)", "collector, not acknowledged"),
                Query("sum(instream_collector_resend_bytes)", "collector, for Kinesis"),
                Query("sum(instream_sink_buffered_bytes)", "sink, open transactions"),
            ],
            Unit.BYTES,
            width=12,
        ),
    ),
)

_LINES: Final = Section(
    "Lines",
    (
        rates("Lines by fate", "instream_etl_lines_total", "outcome")._replace(width=12),
        Panel(
            "Lines in, rows out",
            [
                Query(rate("instream_collector_lines_total"), "lines acknowledged"),
                Query(rate("instream_etl_lines_total"), "lines decided"),
                Query('sum (rate(instream_delivery_rows_total{output!="ledger"}[$__rate_interval]))', "rows loaded"),
            ],
            Unit.PER_SECOND,
            width=12,
            help="Decided follows acknowledged. Rows are fewer: joined lines and duplicates have none of their own.",
        ),
        rates("Rows by flow", "instream_delivery_rows_total", "output")._replace(width=12),
        plain_in_an_hour(
            "Set aside, passed over or left, in an hour",
            help_="All zero when all is well.",
            width=12,
            dead_letters="instream_etl_dead_letters_total",
            transactions_in_quarantine="instream_delivery_quarantined_total",
            foreign_messages="instream_foreign_messages_total",
            foreign_records="instream_bridge_refused_total",
            blocks_left_to_the_audit="instream_collector_resend_dropped_total",
        ),
    ),
)

_PROCESSES: Final = Section(
    "Processes",
    (
        Panel(
            "Starts in an hour", [Query('changes(process_start_time_seconds{job="instream"}[1h])', "{{role}} {{instance}}")]
        ),
        Panel(
            "CPU",
            [Query('rate(process_cpu_seconds_total{job="instream"}[$__rate_interval])', "{{role}} {{instance}}")],
            help="1 is a full core.",
        ),
        Panel(
            "Memory",
            [Query('process_resident_memory_bytes{job="instream"}', "{{role}} {{instance}}")],
            Unit.BYTES,
            help="The README has the bound of each role.",
        ),
    ),
)

OVERVIEW: Final = Board(
    "instream-overview",
    "instream",
    "The page to keep open. Late, stuck, set aside: each has an alarm and a runbook.",
    (_NOW, _FRESHNESS, _STAGES, _LINES, _PROCESSES),
)
