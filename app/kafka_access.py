"""Settings of the way into a Kafka cluster: TLS, and how a client shows who it is.

`app.settings.Settings` has them; `app.adapters.kafka_security` makes clients' options of them. The names and values are
those of Kafka's own clients, but for AWS_MSK_IAM, which is OAUTHBEARER with tokens that the credentials of AWS sign.
"""

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from app.setting_types import Region, TokenUrl
from app.variables import Variables

_PASSWORDS: Final = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
"""The mechanisms with a user and a password."""


class KafkaAccess(Variables):
    """The settings that every Kafka client of a process shares, beside the addresses."""

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """`SSL` is TLS alone; `SASL_SSL` is TLS with KAFKA_SASL_MECHANISM. Without TLS passwords cross the network readable."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"] | None = None
    """How a client shows who it is. `AWS_MSK_IAM` needs the extra `msk` of this package."""
    kafka_username: str | None = None
    """User of PLAIN and SCRAM."""
    kafka_password: str | None = Field(default=None, repr=False)
    """Password of PLAIN and SCRAM."""
    kafka_ca_file: Path | None = None
    """PEM file of the authorities that may sign the brokers' certificates. Default: the system's."""
    kafka_certificate_file: Path | None = None
    """PEM file of this client's certificate, for brokers that ask for one (mutual TLS)."""
    kafka_key_file: Path | None = None
    """PEM file of the certificate's key. Default: it stands in KAFKA_CERTIFICATE_FILE."""
    kafka_key_password: str | None = Field(default=None, repr=False)
    """Password of the key, if it has one."""
    kafka_oauth_token_url: TokenUrl | None = None
    """Where OAUTHBEARER gets its tokens: an OAuth 2 server's token endpoint, asked with grant `client_credentials`."""
    kafka_oauth_client_id: str | None = None
    """Who asks there."""
    kafka_oauth_client_secret: str | None = Field(default=None, repr=False)
    """And its secret."""
    kafka_oauth_scope: str | None = None
    """The scope that is asked for, if the server wants one."""
    kafka_iam_region: Region | None = None
    """Region of the MSK cluster. Default: the process's own (AWS_REGION)."""

    @property
    def kafka_has_tls(self) -> bool:
        """Whether clients speak TLS."""
        return self.kafka_security_protocol.endswith("SSL")

    @model_validator(mode="after")
    def _access_is_whole(self) -> Self:
        """Refuse settings of a way that is not taken, and a way that lacks some."""
        mechanism, protocol = self.kafka_sasl_mechanism, self.kafka_security_protocol
        if (mechanism is not None) != protocol.startswith("SASL_"):
            raise ValueError(
                f"INSTREAM_KAFKA_SECURITY_PROTOCOL is {protocol} and INSTREAM_KAFKA_SASL_MECHANISM is "
                f"{mechanism or 'not set'}: set a mechanism and SASL_SSL (or SASL_PLAINTEXT), or neither"
            )
        if mechanism == "AWS_MSK_IAM" and not self.kafka_has_tls:
            raise ValueError(f"INSTREAM_KAFKA_SECURITY_PROTOCOL={protocol}: AWS_MSK_IAM needs SASL_SSL")
        groups = {
            ("kafka_username", "kafka_password"): mechanism in _PASSWORDS,
            ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret"): mechanism == "OAUTHBEARER",
        }
        for names, are_needed in groups.items():
            for name in names:
                if (getattr(self, name) is not None) != are_needed:
                    what = "is missing" if are_needed else "is set and nothing uses it"
                    raise ValueError(f"INSTREAM_{name.upper()} {what}: KAFKA_SASL_MECHANISM is {mechanism or 'not set'}")
        if not self.kafka_has_tls and (self.kafka_ca_file or self.kafka_certificate_file):
            raise ValueError(
                "INSTREAM_KAFKA_CA_FILE and INSTREAM_KAFKA_CERTIFICATE_FILE need TLS: set INSTREAM_KAFKA_SECURITY_PROTOCOL "
                f"to SSL or SASL_SSL, it is {protocol}"
            )
        if self.kafka_key_file is not None and self.kafka_certificate_file is None:
            raise ValueError("INSTREAM_KAFKA_KEY_FILE is the key of a certificate: set INSTREAM_KAFKA_CERTIFICATE_FILE too")
        return self
