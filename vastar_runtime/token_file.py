"""Bearer tokens in a file: one a line, known here by their hashes only.

A token is looked up by a hash under a key that only this process has, and what is found is compared
in constant time: how long it takes tells nobody how much of a guess was right. The file is read
anew when it changes, and one that others may read or write is refused: what it holds is known to
them already.
"""

import hashlib
import hmac
import os
import stat
from typing import Final

import attrs

__all__ = ["MAX_TOKEN_CHARS", "TokenFile", "TokenFileError", "token_hash"]

MAX_TOKEN_CHARS: Final = 4096
_MIN_TOKEN_CHARS: Final = 16
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_NOT_FOR_OTHERS: Final = 0o027
"""A group may read it, as secrets that are mounted often have it."""
_ROOT_UID: Final = 0
_KEY: Final = os.urandom(32)
_BUCKET_BYTES: Final = 8


class TokenFileError(Exception):
    """The file cannot be used; the message says why and never what is in it."""


def token_hash(token: str) -> bytes:
    """The hash of a token, under the key of this process."""
    return hashlib.blake2b(token.encode(errors="surrogatepass"), digest_size=32, key=_KEY).digest()


@attrs.define(eq=False)
class TokenFile:
    """The tokens of one file, as they were when it was read.

    Attributes:
        path: of the file.
    """

    path: str
    _stamp: tuple[int, ...] | None = None
    _hashes: dict[bytes, list[bytes]] = attrs.field(factory=dict, repr=False)

    def refresh(self) -> bool:
        """Read the file if it is another one than before; whether it was.

        Raises:
            TokenFileError: it cannot be used; no token of it is good until it can.
        """
        try:
            found = os.stat(self.path)  # noqa: PTH116 - paths are text all through
        except OSError as error:
            self._hashes, self._stamp = {}, None
            raise TokenFileError(f"cannot be read ({_lower(error)})") from None
        stamp = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        if stamp == self._stamp:
            return False
        self._hashes, self._stamp = {}, None
        self._hashes = _read(self.path)
        self._stamp = stamp
        return True

    def has(self, digest: bytes) -> bool:
        """Whether the token of this hash is in the file."""
        found = False
        for known in self._hashes.get(digest[:_BUCKET_BYTES], ()):
            found |= hmac.compare_digest(known, digest)
        return found


def _read(path: str) -> dict[bytes, list[bytes]]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - paths are text all through
            _check(os.fstat(file.fileno()))
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TokenFileError(f"cannot be read ({_lower(error)})") from None
    if len(content) > _MAX_FILE_BYTES:
        raise TokenFileError(f"has more than {_MAX_FILE_BYTES} bytes")
    hashes: dict[bytes, list[bytes]] = {}
    for number, line in enumerate(content.splitlines(), 1):
        token = line.strip()
        if not token or token.startswith(b"#"):
            continue
        if not (token.isascii() and token.decode().isprintable() and b" " not in token):
            raise TokenFileError(f"line {number} has characters that no token may have")
        if not _MIN_TOKEN_CHARS <= len(token) <= MAX_TOKEN_CHARS:
            raise TokenFileError(
                f"line {number} has {len(token)} characters: "
                f"a token has {_MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS}"
            )
        digest = token_hash(token.decode())
        hashes.setdefault(digest[:_BUCKET_BYTES], []).append(digest)
    return hashes


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise TokenFileError("is no plain file")
    if found.st_uid not in {os.geteuid(), _ROOT_UID}:
        raise TokenFileError(f"belongs to uid {found.st_uid}, who could change it")
    if found.st_mode & _NOT_FOR_OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise TokenFileError(f"may be read or changed by others (its mode is 0o{mode:o})")


def _lower(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
