"""Certificates for tests: an authority, and what it issues, as files and as server contexts."""

import datetime as dt
import ssl
from pathlib import Path

import attrs
import trustme
from cryptography.hazmat.primitives import serialization

__all__ = ["Authority"]


@attrs.frozen
class Authority:
    """A certificate authority of one test.

    Attributes:
        ca: trustme's.
        folder: where the files go.
        ca_file: its own certificate.
    """

    ca: trustme.CA
    folder: Path
    ca_file: str

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        """A new one, with its files in `folder`."""
        ca = trustme.CA()
        path = folder / "ca.pem"
        ca.cert_pem.write_to_path(str(path))
        return cls(ca, folder, str(path))

    def server(
        self, *names: str, expired: bool = False, wants_client: bool = False
    ) -> ssl.SSLContext:
        """A server context with a certificate for these names."""
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        until = yesterday if expired else None
        leaf = self.ca.issue_cert(
            *names, not_before=yesterday - dt.timedelta(days=1), not_after=until
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        return context

    def client_files(self, password: bytes | None = None) -> tuple[str, str]:
        """(certificate file, key file) of a client certificate, the key maybe encrypted."""
        leaf = self.ca.issue_cert("client@example.org")
        certificate, key = self.folder / "client.pem", self.folder / "client.key"
        leaf.cert_chain_pems[0].write_to_path(str(certificate))
        key_bytes = leaf.private_key_pem.bytes()
        if password is not None:
            loaded = serialization.load_pem_private_key(key_bytes, None)
            key_bytes = loaded.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password),
            )
        key.write_bytes(key_bytes)
        return str(certificate), str(key)
