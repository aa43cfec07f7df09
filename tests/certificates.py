"""Certificates for tests of TLS, made anew for each run: an authority, a server's and a client's.

An interpreter that `cryptography` has no wheel for copies those that another one made: ``python tests/certificates.py
FOLDER``, and the folder's name in `WSFAST_TEST_CERTIFICATES`.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or "WSFAST_TEST_CERTIFICATES" not in os.environ:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """The files, and contexts that use them."""

    authority: Path
    server: Path
    """Certificate and key, for localhost, 127.0.0.1 and ::1."""
    client: Path
    """Certificate and key."""

    def server_context(self, *, client_required: bool = False) -> ssl.SSLContext:
        """Make a server's context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        if client_required:
            context.load_verify_locations(self.authority)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self, *, certificate: bool = False) -> ssl.SSLContext:
        """Make a client's context that trusts the authority."""
        context = ssl.create_default_context(cafile=str(self.authority))
        if certificate:
            context.load_cert_chain(self.client)
        return context


def make_certificates(directory: Path) -> Certificates:
    """Write an authority, a server's and a client's certificate into a directory."""
    made = Certificates(directory / "authority.pem", directory / "server.pem", directory / "client.pem")
    if "WSFAST_TEST_CERTIFICATES" in os.environ:
        shutil.copytree(os.environ["WSFAST_TEST_CERTIFICATES"], directory, dirs_exist_ok=True)
        return made
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _build("wsfast tests", authority_key, None, None)
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for path, name in ((made.server, "localhost"), (made.client, "client")):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _build(name, key, authority, authority_key)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
    return made


def _build(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey | None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer_key or key).public_key()), critical=False
        )
    )
    if issuer is None:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    else:
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        if name == "localhost":
            names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


if __name__ == "__main__":
    make_certificates(Path(sys.argv[1]))
