"""The stand-in for Redshift: PostgreSQL behind a proxy that speaks its protocol and executes Redshift's COPY (rule D4).

It follows Redshift in: `COPY ... FROM 's3://...' ... MANIFEST` in CSV and Avro with Redshift's defaults and refusals,
VARCHAR lengths in bytes, keys that are declared and not enforced, ALTER TABLE with its refusals, one snapshot a transaction,
error 1023, load errors (`sys_load_error_detail`; STL tables are refused, as Serverless refuses them),
`pg_last_copy_count()`, `getdate()`, `json_extract_path_text()`. It differs in this: 1023 comes only if PostgreSQL sees two
writers of one row; `LOCK` and all other plain SQL is PostgreSQL's. It can fail on demand (`faults`).

    wire            messages of the PostgreSQL protocol          copy_statement  COPY's grammar, options known and refused
    ddl, alter      Redshift's CREATE TABLE and ALTER TABLE      files           manifest and objects from S3, decompressed
    render          rows of Avro, and of CSV that PostgreSQL would read otherwise
    load            one COPY on a client's session               session         one client
    faults          failures on demand, and their HTTP control   server          listening, bootstrap
"""

import sys

from app.local.services.postgres import await_session
from app.warehouse_url import redacted_url

HOST = "127.0.0.1"


def command(
    port: int, backend_port: int, *, user: str = "instream", database: str = "instream", control_port: int | None = None
) -> list[str]:
    """The argument vector of a stand-in at 127.0.0.1:`port` before the PostgreSQL at 127.0.0.1:`backend_port`.

    The process reads S3 at AWS_ENDPOINT_URL with the credentials in its environment, makes `database` if it is missing, and
    ends on SIGTERM. With `control_port` it takes faults over HTTP.
    """
    arguments = ["--port", str(port), "--backend", f"{HOST}:{backend_port}", "--user", user, "--database", database]
    control = [] if control_port is None else ["--control-port", str(control_port)]
    return [sys.executable, "-m", "app.local.redshift", *arguments, *control]


async def wait_ready(url: str, timeout_s: float = 30) -> None:
    """Return once the stand-in at `url` answers. Raises LocalStackError: no answer within `timeout_s`."""
    await await_session(url, f"the warehouse at {redacted_url(url)}", timeout_s)
