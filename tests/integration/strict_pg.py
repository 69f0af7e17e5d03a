"""A Postgres that lets nobody in without a password, with TLS and a certificate authority made on the spot."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stacworker.testing.postgres import Postgres, _unprivileged_user

HBA = """
local   all all                    trust
host    all postgres 127.0.0.1/32  trust
hostssl all tls_only 127.0.0.1/32  scram-sha-256
host    all tls_only 127.0.0.1/32  reject
host    all all      127.0.0.1/32  scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority; `path` is its certificate."""

    path: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, path: Path, name: str) -> Authority:
        """Make an authority and write its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        certificate = _builder(subject, subject, key).add_extension(basic, critical=True).sign(key, hashes.SHA256())
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(path, certificate, key)

    def issue(self, host: str, certificate_path: Path, key_path: Path) -> None:
        """Write a server's certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        builder = _builder(subject, self.certificate.subject, key).add_extension(names, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.touch(mode=0o600)
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )


@dataclass(frozen=True, slots=True)
class StrictPostgres:
    """The server: its certificate is for `localhost` only, by `authority`; nothing is by `stranger`."""

    server: Postgres
    authority: Authority
    stranger: Authority


@pytest.fixture(scope="session")
def strict_postgres() -> Iterator[StrictPostgres]:
    """Run the server."""
    folder = Path(tempfile.mkdtemp(prefix="stacworker-strict-"))
    try:
        authority = Authority.make(folder / "ca.crt", "an authority")
        stranger = Authority.make(folder / "other.crt", "another authority")
        authority.issue("localhost", folder / "server.crt", folder / "server.key")
        (folder / "hba.conf").write_text(HBA)
        if os.geteuid() == 0:  # the server runs as somebody else then
            user = _unprivileged_user()
            assert user is not None
            for path in (folder, *folder.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)
        settings = {
            "ssl": "on",
            "ssl_cert_file": str(folder / "server.crt"),
            "ssl_key_file": str(folder / "server.key"),
            "hba_file": str(folder / "hba.conf"),
            "shared_buffers": "16MB",
        }
        with Postgres(settings=settings) as server:
            yield StrictPostgres(server, authority, stranger)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
