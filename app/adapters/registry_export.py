"""An export of the registry to S3, made by DynamoDB itself: Hive and Athena read it as a table.

DynamoDB reads its own backups for that (point-in-time recovery, which `instream init` turns on), so it costs the table no
capacity. On AWS it takes some minutes.
"""

import asyncio
from functools import partial
from typing import Any, Final

from botocore.exceptions import ClientError

from app.adapters.aws import BOTO_ERRORS, Threads, client_config, error_code, failure, made, new_session
from app.adapters.ports import ObjectStore
from app.core.formats.object_keys import EXPORTS_PREFIX, export_of
from app.errors import ConfigurationError, ServiceUnavailable
from app.settings import Settings

POLL_S: Final = 2.0
TIMEOUT_S: Final = 3600
_NO_BACKUPS: Final = "PointInTimeRecoveryUnavailableException"


async def export_registry(settings: Settings, objects: ObjectStore, name: str, poll_s: float = POLL_S) -> str:
    """Export every item of the registry as it is now; return when the files are in the bucket.

    Args:
        settings: they name the table and the bucket.
        objects: that bucket.
        name: a name that no export had before.
        poll_s: pause between two looks at a running export.

    Returns: the value of partition `export` of table `registry_exports`.

    Raises:
        ConfigurationError: the table has no point-in-time recovery.
        ServiceUnavailable: DynamoDB or S3 does not answer, or the export failed.
    """
    threads, client = Threads("registry-export", 1), made(_new_client)
    try:
        table = await threads.run(partial(client.describe_table, TableName=settings.registry_table))
        owner = {"S3BucketOwner": settings.bucket_owner} if settings.bucket_owner else {}
        begun = await threads.run(partial(
            client.export_table_to_point_in_time, TableArn=table["Table"]["TableArn"], S3Bucket=settings.bucket,
            S3Prefix=f"{EXPORTS_PREFIX}{name}", ExportFormat="DYNAMODB_JSON", **owner,
        ))  # fmt: skip
        arn, status = begun["ExportDescription"]["ExportArn"], "IN_PROGRESS"
        async with asyncio.timeout(TIMEOUT_S):
            while status == "IN_PROGRESS":
                found = await threads.run(partial(client.describe_export, ExportArn=arn))
                status = found["ExportDescription"]["ExportStatus"]
                if status == "IN_PROGRESS":
                    await asyncio.sleep(poll_s)
    except BOTO_ERRORS as exc:
        if isinstance(exc, ClientError) and error_code(exc) == _NO_BACKUPS:
            raise ConfigurationError(
                f"table {settings.registry_table} has no point-in-time recovery, from which DynamoDB exports: run "
                "`instream init` with INSTREAM_REGISTRY_PROTECTED=true"
            ) from exc
        raise failure(f"exporting {settings.registry_table}", exc) from exc
    except TimeoutError as exc:
        raise ServiceUnavailable(f"the export of {settings.registry_table} is not done after {TIMEOUT_S} s") from exc
    finally:
        threads.close()
        client.close()
    if status != "COMPLETED":
        said = found["ExportDescription"]
        raise ServiceUnavailable(
            f"the export of {settings.registry_table} failed: {said.get('FailureCode')} {said.get('FailureMessage')}"
        )
    async for info in objects.list(f"{EXPORTS_PREFIX}{name}/"):
        if (export := export_of(info.key)) is not None:
            return export
    raise ServiceUnavailable(
        f"the export of {settings.registry_table} is done, and {EXPORTS_PREFIX}{name}/ has no file of it"
    )


def _new_client() -> Any:
    return new_session().client("dynamodb", config=client_config(1, 3))
