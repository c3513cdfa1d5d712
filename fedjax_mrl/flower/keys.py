"""The keys of a deployment: an authority, the server's certificate, a key a node."""

import datetime
import ipaddress
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedjax_mrl.flower.error import FlowerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_DAYS = 825  # the longest that browsers and phones accept


def create(folder: pathlib.Path, hosts: Sequence[str], clients: int) -> list[str]:
    """Makes all keys of a deployment.

    ca.pem goes to every machine, server.pem and server.key to the server, and each
    client-K.key to its node; client-K.pub is what the server registers. The
    authority's own key is thrown away: nobody can make further certificates.

    Args:
        folder: new or empty; made for its owner only.
        hosts: names and addresses of the server.
        clients: how many nodes there are.

    Returns:
        The names of the files.

    Raises:
        FlowerError: if the folder cannot be used, for no nodes, or for what is neither
            the name nor the address of a host.
    """
    from cryptography.hazmat.primitives import serialization

    if clients < 1:
        raise FlowerError(f"There must be at least one node; got {clients}.")
    for host in hosts:
        _require_host(host)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FlowerError(f"{folder} is not empty. Choose a new folder for keys.")
        authority, server = _key(), _key()
        top = _certificate("fedjax_mrl federation", authority, authority, ())
        files = {
            "ca.pem": _pem(top),
            "server.pem": _pem(_certificate(hosts[0], server, authority, hosts)),
            "server.key": _private(server, serialization.PrivateFormat.PKCS8),
        }
        for client in range(clients):
            key = _key()
            private = _private(key, serialization.PrivateFormat.OpenSSH)
            public = key.public_key().public_bytes(
                serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            )
            files[f"client-{client}.key"] = private
            files[f"client-{client}.pub"] = public + b"\n"
        for name, data in files.items():
            mode = 0o600 if name.endswith(".key") else 0o644
            descriptor = os.open(
                folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
    except OSError as error:
        raise FlowerError(f"Cannot write {folder}: {error.strerror}.") from None
    return list(files)


def _require_host(host: str) -> None:
    """Refuses what no node could find in the certificate."""
    try:
        ipaddress.ip_address(host)
        return
    except ValueError:
        pass
    label = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    numbers = re.fullmatch(r"[0-9.]+", host)
    if numbers or len(host) > 253 or not re.fullmatch(rf"{label}(\.{label})*", host):
        raise FlowerError(
            "--host takes names or addresses alone, as fed.example.org,192.0.2.7, "
            f"without a scheme or port; got {host!r}."
        )


def _key() -> "ec.EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP384R1())


def _private(key: "ec.EllipticCurvePrivateKey", form: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    )


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(
    name: str,
    key: "ec.EllipticCurvePrivateKey",
    signer: "ec.EllipticCurvePrivateKey",
    hosts: Sequence[str],
) -> Any:
    """A certificate of a server for these hosts; without any that of the authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    named = lambda text: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(named(name[:64]))
        .issuer_name(named("fedjax_mrl federation"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(not hosts, None), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .add_extension(_usage(authority=not hosts), critical=True)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        made = made.add_extension(names, critical=False)
        server = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
        made = made.add_extension(server, critical=False)
    return made.sign(signer, hashes.SHA384())


def _usage(*, authority: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
