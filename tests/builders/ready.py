"""Transactions that delivery may load: `txn(0, 1, page_views=1)`."""

from app.core.formats.flows import OUTPUTS
from app.core.formats.transaction_record import OutputObject, Ready


def txn(partition: int, number: int, *, size: int = 1, **rows: int) -> Ready:
    name = f"1-{partition}-{number}-ab"
    outputs = [
        OutputObject(output=flow.name, rows=rows[flow.name], bytes=size, data_key=f"data/{flow.name}/{name}")
        if rows.get(flow.name) else OutputObject(output=flow.name, rows=0)
        for flow in OUTPUTS
    ]  # fmt: skip
    return Ready(
        txn_id=name, epoch=1, partition=partition, number=number, stream_time_ms=1_000, committed_at_ms=2_000,
        outputs=outputs,
    )  # fmt: skip
