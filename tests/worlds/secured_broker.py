"""A Kafka broker with TLS: one listener asks for a certificate, another for a password or a token."""

import asyncio
import base64
import datetime
import ipaddress
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from app.local.services import kafka
from app.local.stack.ports import own_port
from tests.worlds.waiting import HANGS_S

USER, PASSWORD = "instream", "let me in"
DAY = datetime.timedelta(days=1)


class Secured(NamedTuple):
    """The ways into one broker, as the values of settings."""

    tls: dict[str, str]
    scram: dict[str, str]
    oauth: dict[str, str]


class Certificates(NamedTuple):
    """PEM files: an authority, and a certificate with its key that serves the broker and the client."""

    ca: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """New ones, good for a day."""
    folder.mkdir(parents=True)
    found = Certificates(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    ca_key, key = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    ca = _unsigned(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, USER)])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = _unsigned(name, ca_name, key).add_extension(address, critical=False)
    for path, unsigned in ((found.ca, ca), (found.certificate, certificate)):
        path.write_bytes(unsigned.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))  # fmt: skip
    return found


def _unsigned(subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now + DAY)


class Tokens(BaseHTTPRequestHandler):
    """An OAuth server whose tokens nobody signed: a broker without a validator of its own takes them."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        now_s = time.time()
        parts: list[dict[str, object]] = [{"alg": "none"}, {"sub": USER, "iat": now_s, "exp": now_s + 3600}]
        coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"access_token": ".".join(coded) + ".", "expires_in": 3600}).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def token_server() -> Iterator[str]:
    """The URL of a server of tokens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def secured_broker(home: Path) -> Iterator[Secured]:
    """The broker; brokers and controllers talk to each other, and the test waits, on a listener without TLS."""
    ports, tls_port, sasl_port = kafka.KafkaPorts(own_port(), own_port()), own_port(), own_port()
    pem = certificates(home / "pem")
    kafka.prepare(home, ports, 16 * 1024 * 1024)
    _secure(home, ports.broker, tls_port, sasl_port, pem)
    with (home / "out.log").open("wb") as out:
        process = subprocess.Popen(kafka.command(home), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        with token_server() as url:
            asyncio.run(kafka.wait_ready(ports.broker, HANGS_S))
            sasl = {
                "kafka": f"127.0.0.1:{sasl_port}", "kafka_security_protocol": "SASL_SSL", "kafka_ca_file": str(pem.ca),
            }  # fmt: skip
            yield Secured(
                {
                    "kafka": f"127.0.0.1:{tls_port}", "kafka_security_protocol": "SSL", "kafka_ca_file": str(pem.ca),
                    "kafka_certificate_file": str(pem.certificate), "kafka_key_file": str(pem.key),
                },
                sasl | {
                    "kafka_sasl_mechanism": "SCRAM-SHA-512", "kafka_username": USER, "kafka_password": PASSWORD,
                },
                sasl | {
                    "kafka_sasl_mechanism": "OAUTHBEARER", "kafka_oauth_token_url": url, "kafka_oauth_client_id": USER,
                    "kafka_oauth_client_secret": PASSWORD,
                },
            )  # fmt: skip
    finally:
        process.kill()
        process.wait()


def _secure(home: Path, plain_port: int, tls_port: int, sasl_port: int, pem: Certificates) -> None:
    """Add the listeners to the broker's properties, and its user to the storage, which is formatted anew."""
    properties = home / "server.properties"
    values = dict(line.split("=", 1) for line in properties.read_text().splitlines())
    more = f",SSL://127.0.0.1:{tls_port},SASL_SSL://127.0.0.1:{sasl_port}"
    login = "org.apache.kafka.common.security"
    values |= {
        "listeners": values["listeners"] + more, "advertised.listeners": values["advertised.listeners"] + more,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL",
        "inter.broker.listener.name": "PLAINTEXT", "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
        "ssl.keystore.type": "PEM", "ssl.keystore.certificate.chain": pem.certificate.read_text().replace("\n", " "),
        "ssl.keystore.key": pem.key.read_text().replace("\n", " "), "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": pem.ca.read_text().replace("\n", " "),
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
        "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config":
            f'{login}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
    }  # fmt: skip
    properties.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    shutil.rmtree(home / "data")
    user = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
    *java, _, _ = kafka.command(home)
    command = [*java, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(properties), "-S", user]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=HANGS_S)
