"""A certificate authority of the study's own, a certificate of its server, and a key for each hospital.

The authority signs nothing else, so that a hospital trusts one server and no other. Its key stays at home.
"""

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mae_bench.errors import InputError
from mae_bench.store import write_bytes

DAYS = 825  # the longest that common clients accept of a server
USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def write_certificates(folder: Path, hosts: Sequence[str], hospitals: Sequence[str]) -> list[Path]:
    """Write ca.crt, ca.key, server.crt, server.key and, for each hospital, NAME.key and NAME.pub.

    Args:
        folder: where; nothing in it is replaced.
        hosts: names or addresses under which hospitals reach the server.
        hospitals: names of the hospitals.

    Returns:
        What was written.

    Raises:
        InputError: some of it is there already.
    """
    names = ["ca.crt", "ca.key", "server.crt", "server.key"]
    names += [f"{name}.{kind}" for name in hospitals for kind in ("key", "pub")]
    if there := [name for name in names if (folder / name).exists()]:
        raise InputError(f"{folder / there[0]} is there already", "remove it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    authority, server = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    root = _certificate("mae-bench study", authority, authority, "mae-bench study", None)
    leaf = _certificate(hosts[0], server, authority, "mae-bench study", hosts)
    _write_secret(folder / "ca.key", _pem(authority))
    _write_secret(folder / "server.key", _pem(server))
    write_bytes(folder / "ca.crt", root.public_bytes(serialization.Encoding.PEM))
    write_bytes(folder / "server.crt", leaf.public_bytes(serialization.Encoding.PEM))
    for name in hospitals:
        key = ec.generate_private_key(ec.SECP384R1())
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        _write_secret(folder / f"{name}.key", private)
        write_bytes(folder / f"{name}.pub", public + b"\n")
    return [folder / name for name in names]


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    issuer: str,
    hosts: Sequence[str] | None,
) -> x509.Certificate:
    """Of an authority that may sign servers only, or of a server under these hosts."""
    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)  # clocks differ
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=hosts is None, path_length=0 if hosts is None else None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
    )
    usage = dict.fromkeys(USES, False)
    if hosts is None:
        usage |= {"key_cert_sign": True, "crl_sign": True}
    else:
        usage |= {"digital_signature": True}
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    return builder.add_extension(x509.KeyUsage(**usage), True).sign(authority, hashes.SHA384())


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_secret(path: Path, data: bytes) -> None:
    """Readable by its owner from the first moment on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
