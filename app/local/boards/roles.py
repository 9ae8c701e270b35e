"""A page a role, with every metric that the role exports."""

from collections.abc import Sequence
from typing import Final

from app.local.boards.board import Board, Kind, Limit, Panel, Query, Section, Unit
from app.local.boards.overview import OLDEST, STANDS
from app.local.boards.queries import (
    ANY_IS_BAD,
    age,
    in_an_hour,
    level,
    mean,
    means,
    plain_in_an_hour,
    plain_rates,
    rate,
    rates,
    seconds,
)
from app.local.boards.role_page import role_page

_TAG_EVENTS: Final = "instream_collector_tag_events_total"


def _fault(title: str, metric: str) -> Panel:
    return Panel(
        title, [Query(f"max by (instance) ({metric})", "{{instance}}")], Unit.YES_NO, Kind.NUMBER, 4, limits=ANY_IS_BAD
    )


COLLECTOR: Final = role_page(
    "collector",
    "Requests, batches and blocks: the way in.",
    Section(
        "Requests",
        (
            rates("Requests by status", "instream_collector_requests_total", "status"),
            rates("Requests by method", "instream_collector_requests_total", "method"),
            rates("Refused requests by code", "instream_collector_refusals_total", "code"),
            seconds("Time to the answer 200", "instream_collector_ack_seconds", help_="Includes the linger of a batch."),
            rates("Lines", "instream_collector_lines_total", "verdict"),
            Panel(
                "Events of other tags",
                [Query(rate(_TAG_EVENTS, "tag", "kind", "verdict"), "{{tag}} {{kind}} {{verdict}}")],
                Unit.PER_SECOND,
                stacked=True,
                help="refused: there is no type of ours for this kind, so its rows are in flow rejected.",
            ),
            rates("Faults of clients", "instream_collector_client_faults_total", "kind"),
            level("Connections", "instream_collector_connections"),
            rates("Connections that were ended", "instream_collector_connections_closed_total", "reason"),
            level("Requests before or in the parser", "instream_collector_parsing"),
        ),
    ),
    Section(
        "Batches and blocks",
        (
            rates("Batches", "instream_collector_batches_total", "outcome"),
            plain_rates("Blocks", sealed="instream_collector_blocks_total"),
            Panel(
                "Blocks in a batch, lines in a block",
                [
                    Query(mean("instream_collector_blocks_per_batch"), "blocks in a batch"),
                    Query(mean("instream_collector_lines_per_block"), "lines in a block"),
                ],
                help="Blocks of hundreds of lines keep the etl cheap.",
            ),
            level("Bytes in memory, not acknowledged", "instream_collector_buffered_bytes", unit=Unit.BYTES),
            level("Blocks that wait for Kinesis", "instream_collector_resend_bytes", unit=Unit.BYTES),
            in_an_hour("Blocks left to the audit, in an hour", "instream_collector_resend_dropped_total", "reason"),
            rates("Failed calls", "instream_collector_put_failures_total", "service"),
            Panel(
                "Clock against S3's",
                [Query("abs(max by (instance) (instream_collector_clock_skew_seconds))", "{{instance}}")],
                Unit.SECONDS,
                limits=(Limit(2.5, "orange"), Limit(5, "red")),
                help="From 5 s on the collector answers 503.",
            ),
            level("Write keys in force", "instream_collector_write_keys", how="max"),
            _fault("Storage fails", "instream_collector_storage_fault"),
            _fault("The file of keys does not fit", "instream_collector_write_keys_fault"),
        ),
    ),
    consumer=False,
)

BRIDGE: Final = role_page(
    "bridge",
    "From Kinesis to topic blocks.",
    Section(
        "Shards",
        (
            age("Watermark of each shard, age", "max by (shard) (instream_bridge_mark_ms) / 1000", "shard", STANDS),
            Panel(
                "Behind the end of the shard",
                [Query("max by (shard) (instream_bridge_behind_ms) / 1000", "{{shard}}")],
                Unit.SECONDS,
            ),
            level("Shards that are read", "instream_bridge_pumps"),
            plain_rates("Records that Kafka acknowledged", records="instream_bridge_records_total"),
            plain_rates("Bytes that Kafka acknowledged", Unit.BYTES_PER_SECOND, bytes="instream_bridge_bytes_total"),
            plain_rates(
                "Watermark messages and checkpoints",
                watermark_messages="instream_bridge_ticks_total",
                checkpoints="instream_bridge_checkpoints_total",
            ),
            plain_rates(
                "Failed reads",
                reads="instream_bridge_read_failures_total",
                lists_of_shards="instream_bridge_list_failures_total",
                iterators_renewed="instream_bridge_iterators_renewed_total",
            ),
            in_an_hour("Records that are not passed on, in an hour", "instream_bridge_refused_total", "reason"),
            in_an_hour("Shards that ended, in an hour", "instream_bridge_ends_total", "why"),
        ),
    ),
)

ETL: Final = role_page(
    "etl",
    "Dedup, join, enrichment: the steps.",
    Section(
        "Steps",
        (
            rates("Lines by fate", "instream_etl_lines_total", "outcome"),
            age(
                "Stream time of each partition, age",
                "max by (partition) (instream_etl_stream_time_seconds)",
                "partition",
                STANDS,
            ),
            seconds("Wait for the join", "instream_join_wait_seconds"),
            plain_rates("Steps", steps="instream_etl_steps_total"),
            means("Seconds of a step's parts", "instream_etl_step_seconds", "part"),
            plain_rates("Bytes of step messages", Unit.BYTES_PER_SECOND, bytes="instream_etl_step_bytes_total"),
        ),
    ),
    Section(
        "Set aside, or met again",
        (
            plain_in_an_hour(
                "Set aside, in an hour",
                dead_letters="instream_etl_dead_letters_total",
                alarms="instream_etl_alarms_total",
                careful_steps="instream_etl_careful_steps_total",
            ),
            plain_rates("Blocks met again, dropped whole", blocks="instream_etl_replays_total"),
            plain_rates("Addresses that the geo database cannot read", addresses="instream_geo_unreadable_total"),
        ),
    ),
)

SINK: Final = role_page(
    "sink",
    "Transactions: stage, commit, move, manifests.",
    Section(
        "Transactions",
        (
            age(
                "Stream time of each partition, age",
                "max by (partition) (instream_sink_stream_time_seconds)",
                "partition",
                (Limit(180, "red"),),
                help_="An idle partition commits once a minute.",
            ),
            rates("Transactions", "instream_sink_transactions_total", "kind"),
            level("Last finished number", "instream_sink_number", "partition", how="max"),
            rates("Rows", "instream_sink_rows_total", "output"),
            rates("Bytes of files", "instream_sink_file_bytes_total", "output", Unit.BYTES_PER_SECOND),
            level("Bytes in open transactions", "instream_sink_buffered_bytes", "partition", Unit.BYTES),
            means("Seconds of a commit's phases", "instream_sink_commit_seconds", "phase"),
            rates("Step messages", "instream_sink_messages_total", "arrival"),
            rates("Calls to S3 that are tried again", "instream_sink_retries_total", "error"),
            in_an_hour("Commits that found their number taken, in an hour", "instream_sink_conflicts_total", "holder"),
            plain_in_an_hour(
                "Transactions finished once more, in an hour",
                transactions="instream_sink_rolled_forward_total",
            ),
            in_an_hour("Old staged objects, in an hour", "instream_sink_swept_objects_total", "verdict"),
        ),
    ),
)

DELIVERY: Final = role_page(
    "delivery",
    "Loads into the warehouse.",
    Section(
        "Loads",
        (
            level("Deferrals in a row", "instream_delivery_deferrals_in_a_row", how="max"),
            in_an_hour("Deferrals by reason, in an hour", "instream_delivery_deferrals_total", "reason"),
            plain_in_an_hour(
                "Set aside or mended, in an hour",
                quarantined="instream_delivery_quarantined_total",
                ready_json_written_again="instream_delivery_finished_again_total",
            ),
            seconds("From commit to load", "instream_delivery_wait_seconds"),
            plain_rates("Transactions loaded", transactions="instream_delivery_transactions_total"),
            rates("Rows loaded", "instream_delivery_rows_total", "output"),
            age("Complete up to, age", "max by (flow) (instream_complete_up_to_seconds)", "flow"),
            means("Received to visible, mean", "instream_received_to_visible_seconds", "flow"),
            Panel(
                "Rows that came late",
                [
                    Query("instream:late_rows:ratio_5m", "5 minutes"),
                    Query("instream:late_rows:ratio_30m", "30 minutes"),
                    Query("instream:late_rows:ratio_1h", "an hour"),
                    Query("instream:late_rows:ratio_6h", "6 hours"),
                ],
                Unit.SHARE,
            ),
        ),
    ),
)

AUDIT: Final = role_page(
    "audit",
    "Every batch against its ledger.",
    Section(
        "Rounds",
        (
            level("Batches of the last round", "instream_audit_open_batches", "found", how="max"),
            rates("Verdicts", "instream_audit_verdicts_total", "verdict"),
            in_an_hour(
                "Replayed blocks that Kinesis did not take, in an hour", "instream_audit_refused_blocks_total", "error"
            ),
            plain_in_an_hour("Unreadable ledger files, in an hour", files="instream_audit_unreadable_ledgers_total"),
            OLDEST,
        ),
    ),
    Section(
        "Index of ids",
        (
            plain_rates("Lines that were indexed", lines="instream_index_lines_total"),
            Panel(
                "Hours that are not settled",
                [Query("max(instream_index_unsettled_hours)", "hours")],
                help="One or two are usual. `instream trace` reads the raw files that are in no index; that is slow.",
            ),
            Panel(
                "Raw files whose ids cannot be read",
                [Query("max(instream_index_unreadable_files)", "files")],
                help="As the last round saw them. `instream audit --deep` names their batches.",
                limits=ANY_IS_BAD,
            ),
        ),
    ),
    Section(
        "Certificates of hours",
        (
            plain_in_an_hour("Certificates written, in an hour", certificates="instream_audit_certificates_total")._replace(
                limits=()
            ),
            Panel(
                "Age of the newest hour with a certificate",
                [Query("time() - max(instream_audit_certified_hour_seconds > 0)", "age")],
                Unit.SECONDS,
                help="An hour gets its certificate when each of its batches is complete.",
            ),
            Panel(
                "Hours whose books do not balance",
                [Query("max(instream_audit_unbalanced_hours)", "hours")],
                help="Alert BooksUnbalanced fires; `instream prove --hour` names the batches.",
                limits=ANY_IS_BAD,
            ),
        ),
    ),
)

ROLE_BOARDS: Final[Sequence[Board]] = (COLLECTOR, BRIDGE, ETL, SINK, DELIVERY, AUDIT)
