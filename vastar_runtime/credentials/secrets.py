"""The texts of secrets, from variables and files; a file that changes is read again.

A file is looked at (one `stat`) when its secret is asked for and the last look was a second ago,
on the event loop: 3 us for a file of this host, where a thread would take 100. A file system that
answers slowly is asked less often, so that it has a twentieth of the loop's time at most. What
cannot be used any more leaves the last good value in force, and is logged once.

Nothing here shows what it holds: `repr` does not, and no error quotes it.
"""

import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Final

from vastar_runtime.config import Part, Reference
from vastar_runtime.logs import get_logger

__all__ = ["CHECK_INTERVAL_S", "MAX_SECRET_BYTES", "SecretFile", "SecretText", "UnusableSecret",
           "read_variable"]  # fmt: skip

CHECK_INTERVAL_S: Final = 1.0
MAX_SECRET_BYTES: Final = 16 * 1024
"""More fits into no header that a server takes."""

_SHARE_OF_LOOP: Final = 20
_NEVER_IN_HEADERS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BLANK: Final = " \t\r\n"

_Stamp = tuple[int, ...]

_log = get_logger(__name__)


class UnusableSecret(Exception):  # noqa: N818 - it is the secret that is unusable
    """What is in place of a secret cannot be sent; `wrong` and `right` quote nothing of it."""

    def __init__(self, wrong: str, right: str) -> None:
        self.wrong = wrong
        self.right = right
        super().__init__(wrong)


def read_variable(name: str, environ: Mapping[str, str]) -> str:
    """The secret in an environment variable.

    Raises:
        UnusableSecret: it is not set, or cannot be sent.
    """
    text = environ.get(name)
    if text is None:
        raise UnusableSecret(f"the variable {name} is not set", "set it, or refer to a file")
    return _clean(text, f"the variable {name}")


class SecretFile:
    """A secret in a file of its own.

    Attributes:
        text: what was last read there, without the blanks around it.
        version: counts the texts.

    Raises:
        UnusableSecret: it cannot be read, or what is there cannot be sent.
    """

    __slots__ = ("_due_s", "_is_lost", "_path", "_stamp", "text", "version")

    def __init__(self, path: str) -> None:
        self._path = path
        self._due_s = float("-inf")
        self._is_lost = False
        self.version = 1
        self._stamp, self.text = _read(path)

    def __repr__(self) -> str:
        return f"SecretFile({self._path!r})"

    def refresh(self, now_s: float) -> None:
        """Look whether the file has changed, unless somebody looked within the last second."""
        if now_s < self._due_s:
            return
        began_s = time.perf_counter()
        try:
            if _stamp(os.stat(self._path)) != self._stamp:  # noqa: PTH116 - a third of Path's time
                self._read_again()
        except OSError as error:
            self._lose(_reason(error))
        took_s = time.perf_counter() - began_s
        self._due_s = now_s + max(CHECK_INTERVAL_S, took_s * _SHARE_OF_LOOP)

    def _read_again(self) -> None:
        try:
            self._stamp, text = _read(self._path)
        except UnusableSecret as error:
            self._lose(error.wrong)
            return
        if self._is_lost or text != self.text:
            _log.info("a secret was read anew", path=self._path)
        self._is_lost = False
        if text != self.text:
            self.text = text
            self.version += 1

    def _lose(self, reason: str) -> None:
        self._stamp = ()
        if not self._is_lost:
            self._is_lost = True
            _log.error(
                "a secret cannot be read any more, its last value holds",
                path=self._path,
                reason=reason,
            )


class SecretText:
    """A text with secrets in it, as it is to be sent.

    Args:
        parts: as `split_references` gives them.
        files: those that were opened, by path.
        environ: where variables are.

    Raises:
        UnusableSecret: a variable is not there.
    """

    __slots__ = ("_files", "_parts", "_value", "_versions")

    def __init__(
        self, parts: Sequence[Part], files: Mapping[str, SecretFile], environ: Mapping[str, str]
    ) -> None:
        self._parts = tuple(_source(part, files, environ) for part in parts)
        self._files = tuple(part for part in self._parts if isinstance(part, SecretFile))
        self._versions = 0
        self._value = ""

    def __repr__(self) -> str:
        return "SecretText(...)"

    def get(self, now_s: float) -> str:
        """What it is now; the same object until it changes."""
        versions = 1
        for file in self._files:
            file.refresh(now_s)
            versions += file.version
        if versions != self._versions:
            self._versions = versions
            self._value = "".join(
                part if isinstance(part, str) else part.text for part in self._parts
            )
        return self._value


def _source(
    part: Part, files: Mapping[str, SecretFile], environ: Mapping[str, str]
) -> str | SecretFile:
    if not isinstance(part, Reference):
        return part
    return files[part.name] if part.kind == "file" else read_variable(part.name, environ)


def _read(path: str) -> tuple[_Stamp, str]:
    """What tells a change of the file, and its secret."""
    try:
        # A pipe that nobody writes to must not stop the daemon.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UnusableSecret(f"it cannot be read ({_reason(error)})", _RIGHT) from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise UnusableSecret("it is no regular file", _RIGHT)
        data = os.read(fd, MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise UnusableSecret(f"it cannot be read ({_reason(error)})", _RIGHT) from None
    finally:
        os.close(fd)
    if len(data) > MAX_SECRET_BYTES:
        raise UnusableSecret(f"it is longer than {MAX_SECRET_BYTES} bytes", _RIGHT)
    try:
        return _stamp(info), _clean(data.decode(), "it")
    except UnicodeDecodeError:
        raise UnusableSecret("it is not UTF-8 text", _RIGHT) from None


_RIGHT: Final = "name a readable file that holds the secret and nothing else"


def _clean(text: str, what: str) -> str:
    """`text` without the blanks and line ends around it, which editors and tools leave."""
    text = text.strip(_BLANK)
    if not text:
        raise UnusableSecret(f"{what} is empty", _RIGHT)
    if _NEVER_IN_HEADERS.search(text):
        raise UnusableSecret(f"{what} has several lines or control characters", _RIGHT)
    return text


def _stamp(info: os.stat_result) -> _Stamp:
    """Different after each way of replacing a file: written over, moved over, linked elsewhere."""
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
