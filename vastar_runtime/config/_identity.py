"""Who may call on whose behalf, over what, and where that is written down: keys and ranges."""

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

__all__ = ["IDENTITY_KEYS", "AuditConfig", "TcpConfig"]

_MAX_ID: Final = 2**32 - 2
_Text: TypeAlias = Annotated[str, Meta(min_length=1)]
UserIds: TypeAlias = tuple[Annotated[int, Meta(ge=0, le=_MAX_ID)], ...]

IDENTITY_KEYS: Final = ("allow_uids", "allow_gids", "allow_subjects", "token_file")
"""Of a tenant: who may use it. A tenant that has none of them is for the runtime's own user."""


class TcpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """TLS for callers over TCP: with a certificate, every TCP listener speaks it."""

    allow_remote: Annotated[
        bool,
        Meta(description="listen beyond loopback; needs TLS, and tokens or client certificates"),
    ] = False
    cert_file: Annotated[
        _Text | None,
        Meta(description="certificate chain shown to callers (PEM)", extra={"file": True}),
    ] = None
    key_file: Annotated[
        _Text | None,
        Meta(description="its key, when not in the same file", extra={"file": True}),
    ] = None
    client_ca_file: Annotated[
        _Text | None,
        Meta(description="CA (PEM) of the certificates of callers", extra={"file": True}),
    ] = None
    require_client_cert: Annotated[
        bool, Meta(description="refuse callers without a certificate; else it is optional")
    ] = False


class AuditConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The audit log: a line for each refused or privileged action."""

    path: Annotated[
        _Text | None,
        Meta(
            description="file of its own, made with mode 0600; not set: into the log",
            extra={"path": True},
        ),
    ] = None
