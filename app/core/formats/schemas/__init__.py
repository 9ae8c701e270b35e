"""The Avro schemas of the flows that are written as Avro: `<flow>.v<version>.avsc`.

Warehouses map Avro fields to columns by name. Timestamps are plain longs, milliseconds since the epoch: COPY reads them with
TIMEFORMAT 'epochmillisecs', and does not know Avro's logical types. Every field may be null, so that a reader of an older
version finds a default. A schema that has been used is never edited: a new column is a new version, the older ones stay
beside it for whoever reads old files.
"""

import json
from functools import cache
from importlib import resources
from typing import Any, Final

import fastavro

VERSIONS: Final = {"ad_clicks": 1, "redirects": 1, "rejected": 1}
"""The version that is written, of each flow that is Avro."""


def schema_text(flow: str, version: int) -> str:
    """The schema's JSON."""
    return resources.files(__name__).joinpath(f"{flow}.v{version}.avsc").read_text(encoding="utf-8")


@cache
def schema_of(flow: str) -> Any:
    """The schema that `flow` is written with, parsed by fastavro."""
    return fastavro.parse_schema(json.loads(schema_text(flow, VERSIONS[flow])))
