"""What `instream init` makes on AWS: whose it is, how it is protected, and what it leaves alone."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.core.formats.batch import new_batch_id, seal
from app.core.formats.stored_line import StoredLine
from app.errors import ConfigurationError, OutsideError
from app.settings import Settings
from tests.worlds.http_server import Answering, serving

OWNER = "123456789012"
NOW_MS = 1_795_000_000_000


async def made(kind: Any, settings: Settings, **changed: Any) -> None:
    adapter = kind(settings.model_copy(update=changed))
    await adapter.ensure()
    await adapter.close()


def s3() -> Any:
    return boto3.session.Session().client("s3")


def lifecycle(settings: Settings) -> dict[str, dict[str, Any]]:
    rules = s3().get_bucket_lifecycle_configuration(Bucket=settings.bucket)["Rules"]
    return {rule["Filter"]["Prefix"]: rule for rule in rules}


def days(rules: dict[str, dict[str, Any]]) -> dict[str, int | None]:
    """Prefix -> days after which its objects expire; None for only their old versions."""
    return {prefix: rule["Expiration"].get("Days") for prefix, rule in rules.items()}


async def test_a_bucket_keeps_versions_and_drops_old_ones_of_staged_files(aws_settings: Settings) -> None:
    for _ in range(2):
        await made(S3ObjectStore, aws_settings)
        assert s3().get_bucket_versioning(Bucket=aws_settings.bucket)["Status"] == "Enabled"
        found = lifecycle(aws_settings)
        assert found["jobdata/"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}
        assert days(found) == {"jobdata/": None, "manifests/": 90, "loads/": 90, "registry/": 30}


async def test_things_are_kept_as_long_as_the_settings_say(aws_settings: Settings) -> None:
    await made(S3ObjectStore, aws_settings, retention_raw_days=365, retention_data_days=400, retention_manifests_days=0)
    kept = {"jobdata/": None, "raw/": 365, "index/": 365, "data/": 400, "registry/": 30}
    assert days(lifecycle(aws_settings)) == kept
    await made(S3ObjectStore, aws_settings, retention_exports_days=0, retention_manifests_days=0)
    assert days(lifecycle(aws_settings)) == {"jobdata/": None}, "what is for ever again has no rule"


async def test_a_bucket_without_versions_and_without_expiry_stays_as_it_is(aws_settings: Settings) -> None:
    for _ in range(2):
        await made(
            S3ObjectStore, aws_settings, bucket_versioning=False, retention_manifests_days=0, retention_exports_days=0
        )
        assert "Status" not in s3().get_bucket_versioning(Bucket=aws_settings.bucket)
        with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
            s3().get_bucket_lifecycle_configuration(Bucket=aws_settings.bucket)
        await made(S3ObjectStore, aws_settings, bucket_versioning=False)
        assert "NoncurrentVersionExpiration" not in lifecycle(aws_settings)["manifests/"]


async def test_the_rules_of_an_operator_are_not_replaced(aws_settings: Settings) -> None:
    s3().create_bucket(Bucket=aws_settings.bucket)
    rule = {"ID": "theirs", "Filter": {"Prefix": "raw/"}, "Status": "Enabled", "Expiration": {"Days": 365}}
    s3().put_bucket_lifecycle_configuration(Bucket=aws_settings.bucket, LifecycleConfiguration={"Rules": [rule]})
    for _ in range(2):
        await made(S3ObjectStore, aws_settings)
        found = lifecycle(aws_settings)
        assert (found["raw/"]["ID"], found["raw/"]["Expiration"]) == ("theirs", {"Days": 365})
        assert days(found) == {"raw/": 365, "jobdata/": None, "manifests/": 90, "loads/": 90, "registry/": 30}


async def test_an_item_expires_behind_its_raw_file_and_only_once_its_batch_is_complete(aws_settings: Settings) -> None:
    settings = aws_settings.model_copy(update={"retention_raw_days": 365})
    for _ in range(2):
        await made(DynamoRegistry, settings)
    client = boto3.session.Session().client("dynamodb")
    expiry = client.describe_time_to_live(TableName=settings.registry_table)["TimeToLiveDescription"]
    assert (expiry["TimeToLiveStatus"], expiry["AttributeName"]) == ("ENABLED", "expires_at")
    registry = DynamoRegistry(settings)
    item = seal(new_batch_id(NOW_MS, bytes(10)), 1, 4, [StoredLine(b"{}", b"k", True, None, NOW_MS)]).item
    await registry.register(item)

    def expires_at() -> int | None:
        found = client.get_item(TableName=settings.registry_table, Key={"batch_id": {"S": item.batch_id}})["Item"]
        return int(found["expires_at"]["N"]) if "expires_at" in found else None

    assert expires_at() is None
    await registry.complete(item.batch_id)
    assert expires_at() == NOW_MS // 1000 + 395 * 86_400
    assert await registry.get(item.batch_id) is not None
    await registry.close()


async def test_a_bucket_encrypts_with_a_key_of_ours(aws_settings: Settings) -> None:
    await made(S3ObjectStore, aws_settings, bucket_kms_key="alias/lake")
    found = s3().get_bucket_encryption(Bucket=aws_settings.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert found[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/lake"}


class AnotherAccounts(Answering):
    """S3 where the bucket is another account's: HEAD says what the server is told to, CreateBucket that it exists."""

    def _answer(self) -> None:
        server: Any = self.server
        server.owners.append(self.headers.get("x-amz-expected-bucket-owner"))
        status = server.head if self.command == "HEAD" else 409
        self.answer(status, b"<Error><Code>BucketAlreadyExists</Code></Error>")

    do_GET = do_HEAD = do_PUT = do_POST = _answer


@pytest.fixture
def anothers(aws_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with serving(AnotherAccounts, head=404, owners=[]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield server


@pytest.mark.parametrize("head", [404, 403], ids=["nobody may see it", "we may not"])
async def test_a_bucket_of_another_account_is_refused(aws_settings: Settings, anothers: Any, head: int) -> None:
    anothers.head = head
    with pytest.raises(ConfigurationError, match=f"bucket {aws_settings.bucket} belongs to another account"):
        await made(S3ObjectStore, aws_settings)


@pytest.mark.parametrize("owner", [OWNER, None])
async def test_every_call_names_the_account_that_owns_the_bucket(
    aws_settings: Settings, anothers: Any, owner: str | None
) -> None:
    store = S3ObjectStore(aws_settings.model_copy(update={"bucket_owner": owner}))
    calls = (
        store.put("k", b""), store.get("k"), store.head("k"), store.copy("k", "l"), store.delete(["k"]),
        anext(store.list("p")),
    )  # fmt: skip
    for call in calls:
        with suppress(OutsideError, StopAsyncIteration):
            await call
    assert len(anothers.owners) >= len(calls)
    assert set(anothers.owners) == {owner}
    await store.close()


async def test_the_registry_is_protected_also_if_it_was_made_without(aws_settings: Settings) -> None:
    client: Any = boto3.session.Session().client("dynamodb")
    table = aws_settings.registry_table

    def protection() -> tuple[bool, str]:
        backups = client.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
        is_kept = client.describe_table(TableName=table)["Table"]["DeletionProtectionEnabled"]
        return is_kept, backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]

    await made(DynamoRegistry, aws_settings, registry_protected=False)
    assert protection() == (False, "DISABLED")
    for _ in range(2):
        await made(DynamoRegistry, aws_settings)
        assert protection() == (True, "ENABLED")
    await made(DynamoRegistry, aws_settings, registry_protected=False)
    assert protection() == (True, "ENABLED"), "protection is only ever turned on"


@pytest.mark.parametrize(("shards", "mode"), [(0, "ON_DEMAND"), (3, "PROVISIONED")])
async def test_a_stream_is_on_demand_or_has_its_shards(aws_settings: Settings, shards: int, mode: str) -> None:
    client: Any = boto3.session.Session().client("kinesis")

    def found() -> Any:
        return client.describe_stream_summary(StreamName=aws_settings.stream)["StreamDescriptionSummary"]

    await made(KinesisBlockStream, aws_settings, stream_shards=shards, stream_retention_h=168)
    assert found()["StreamModeDetails"] == {"StreamMode": mode}
    assert not shards or found()["OpenShardCount"] == shards
    assert found()["RetentionPeriodHours"] == 168
    await made(KinesisBlockStream, aws_settings, stream_retention_h=24)
    assert found()["RetentionPeriodHours"] == 168, "it is never lowered"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bucket_owner": "acme"}, "BUCKET_OWNER=acme: give an AWS account: 12 digits"),
        ({"bucket_versioning": "perhaps"}, "BUCKET_VERSIONING=perhaps: give true or false"),
        ({"stream_retention_h": 12}, "STREAM_RETENTION_H=12: give a whole number from 24 to 8760"),
        ({"stream_shards": -1}, "STREAM_SHARDS=-1: give a whole number from 0 to 10000"),
        ({"bucket_kms_key": "my key"}, "BUCKET_KMS_KEY=my key: give a KMS key"),
    ],
)
def test_absurd_values_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Settings(**values)
