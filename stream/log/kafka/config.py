"""How to reach Kafka: security and timeouts. Secrets are named, never held: an environment variable or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from stream.errors import ConfigError
from stream.log.base import LogError
from stream.secrets import read_secret


class KafkaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connection to Apache Kafka; the brokers are in the log's URL."""

    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Meta(description="encryption and authentication")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Meta(description="SASL mechanism")
    ] = "PLAIN"
    sasl_username: Annotated[str, Meta(description="user for SASL_*")] = ""
    sasl_password_env: Annotated[str, Meta(description="environment variable with the password for SASL_*")] = ""
    sasl_password_file: Annotated[str, Meta(description="file with the password for SASL_*")] = ""
    ssl_cafile: Annotated[
        str, Meta(description='file with the certificates to trust (PEM), "" those of the system')
    ] = ""
    ssl_certfile: Annotated[str, Meta(description='file with our own certificate (PEM), "" for none')] = ""
    ssl_keyfile: Annotated[str, Meta(description="file with the key of our certificate (PEM)")] = ""
    ssl_key_password_env: Annotated[str, Meta(description="environment variable with the key's password")] = ""
    ssl_key_password_file: Annotated[str, Meta(description="file with the key's password")] = ""
    ssl_check_hostname: Annotated[bool, Meta(description="the broker's certificate must be for its host name")] = True
    replication_factor: Annotated[
        int, Meta(ge=-1, le=100, description="copies of each new topic, -1: the brokers' default; count")
    ] = -1
    request_timeout_ms: Annotated[
        int, Meta(ge=1000, le=600_000, description="longest wait for an answer of a broker; ms")
    ] = 30_000
    commit_timeout_ms: Annotated[
        int,
        Meta(ge=1000, le=900_000, description="wait after which the outcome of a commit counts as unknown; ms"),
    ] = 60_000
    transaction_timeout_ms: Annotated[
        int, Meta(ge=1000, le=900_000, description="age at which a broker aborts an unfinished transaction; ms")
    ] = 60_000
    retry_backoff_ms: Annotated[
        int, Meta(ge=1, le=10_000, description="pause before a request is repeated; a commit often waits once; ms")
    ] = 10

    def __post_init__(self) -> None:
        for secret in ("sasl_password", "ssl_key_password"):
            if getattr(self, f"{secret}_env") and getattr(self, f"{secret}_file"):
                raise ValueError(f"{secret}_env and {secret}_file: give one of them, not both")
        if self.security_protocol.startswith("SASL"):
            if not self.sasl_username:
                raise ValueError(f"sasl_username = '': {self.security_protocol} needs one")
            if not self.sasl_password_env and not self.sasl_password_file:
                raise ValueError(f"sasl_password_env or sasl_password_file: {self.security_protocol} needs one")
        if bool(self.ssl_certfile) != bool(self.ssl_keyfile):
            raise ValueError("ssl_certfile and ssl_keyfile: give both or none")

    def client_options(self) -> dict[str, Any]:
        """Options of kafka-python's clients, secrets included: never log them."""
        options: dict[str, Any] = {
            "security_protocol": self.security_protocol,
            "request_timeout_ms": self.request_timeout_ms,
            "retry_backoff_ms": self.retry_backoff_ms,
        }
        if self.security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self._secret("sasl_password"),
            }
        if self.security_protocol.endswith("SSL"):
            options["ssl_check_hostname"] = self.ssl_check_hostname
            for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
                path = getattr(self, name)
                if path and not Path(path).is_file():
                    raise LogError(f"log.kafka.{name} = {path!r}: there is no such file")
                options[name] = path or None
            if self.ssl_key_password_env or self.ssl_key_password_file:
                options["ssl_password"] = self._secret("ssl_key_password")
        return options

    def _secret(self, name: str) -> str:
        variable, path = getattr(self, f"{name}_env"), getattr(self, f"{name}_file")
        try:
            return read_secret(f"log.kafka.{name}", variable, path)
        except ConfigError as exc:
            raise LogError(str(exc)) from None
