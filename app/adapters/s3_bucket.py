"""The bucket as `instream init` makes it. What is there stays, and protection is only ever turned on."""

from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from app.adapters.aws import error_code, status_of
from app.core.retention import lifecycle_rules, merged
from app.errors import ConfigurationError
from app.settings import Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_OURS_ALREADY: Final = "BucketAlreadyOwnedByYou"
_NO_LIFECYCLE: Final = "NoSuchLifecycleConfiguration"


def expected_owner(settings: Settings) -> dict[str, str]:
    """The argument with which S3 refuses every call to a bucket of another account; empty where the account is not set."""
    return {"ExpectedBucketOwner": settings.bucket_owner} if settings.bucket_owner else {}


def make_bucket(client: "S3Client", settings: Settings) -> None:
    """Make the bucket if it is missing, and turn on versions and encryption by the settings. Safe to call again.

    Effects in order; a crash after each leaves what the next call goes on with:
      1 CreateBucket                an empty bucket
      2 versions                    a bucket whose objects survive a deletion
      3 lifecycle                   what expires by the settings, and old versions; rules of others stay as they are
      4 encryption by a KMS key     only if a key is set; S3 encrypts with keys of its own by itself

    Raises:
        ConfigurationError: the bucket belongs to another account.
    """
    place: Any = {"Bucket": settings.bucket}
    ours: Any = place | expected_owner(settings)
    if not _is_there(client, ours, settings):
        _create(client, place)  # 1
    if settings.bucket_versioning and client.get_bucket_versioning(**ours).get("Status") != "Enabled":
        client.put_bucket_versioning(**ours, VersioningConfiguration={"Status": "Enabled"})  # 2
    existing = _lifecycle(client, ours)
    wanted = merged(existing, lifecycle_rules(settings.retention, versions=settings.bucket_versioning))
    if wanted and wanted != existing:
        rules: Any = wanted
        client.put_bucket_lifecycle_configuration(**ours, LifecycleConfiguration={"Rules": rules})  # 3
    elif existing and not wanted:
        client.delete_bucket_lifecycle(**ours)  # 3
    if settings.bucket_kms_key is not None:
        by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": settings.bucket_kms_key}
        encryption: Any = [{"ApplyServerSideEncryptionByDefault": by_default, "BucketKeyEnabled": True}]
        client.put_bucket_encryption(**ours, ServerSideEncryptionConfiguration={"Rules": encryption})  # 4


def _is_there(client: "S3Client", ours: Any, settings: Settings) -> bool:
    try:
        client.head_bucket(**ours)
    except ClientError as exc:
        if status_of(exc) == 404:
            return False
        if status_of(exc) == 403:
            raise _foreign(settings.bucket) from exc
        raise
    return True


def _create(client: "S3Client", place: Any) -> None:
    region = client.meta.region_name
    where: Any = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(**place, **where)
    except ClientError as exc:
        if error_code(exc) == "BucketAlreadyExists":
            raise _foreign(place["Bucket"]) from exc
        if error_code(exc) != _OURS_ALREADY:  # another process has just made it
            raise


def _lifecycle(client: "S3Client", ours: Any) -> list[dict[str, Any]]:
    """The rules of the bucket's lifecycle."""
    try:
        rules: Any = client.get_bucket_lifecycle_configuration(**ours)["Rules"]
    except ClientError as exc:
        if error_code(exc) == _NO_LIFECYCLE:
            return []
        raise
    return list(rules)


def _foreign(bucket: str) -> ConfigurationError:
    return ConfigurationError(
        f"bucket {bucket} belongs to another account, or this one may not use it (s3:ListBucket): set INSTREAM_BUCKET to a "
        "name of your own; names of buckets are unique among all accounts"
    )
