"""Texts that refer to secrets: `Bearer ${file:/run/secrets/key}`, `${env:KEY}`.

A configuration is printed, compared and sent to workers; a secret in it would go along. So it only
ever names the place, and what reads the place (`vastar_runtime.credentials`) keeps what it finds.
The text around a reference is shown, so it must not look like a secret itself.
"""

import re
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from vastar_runtime.redaction import redact_text

__all__ = ["BadReference", "Part", "Reference", "beside", "references_in", "split_references"]

_FOUND: Final = re.compile(r"\$\{(env|file):([^{}\x00-\x1f\x7f]{1,4096})\}")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AROUND: Final = re.compile(r"[\x20-\x7e]*")
_MAX_AROUND_CHARS: Final = 64
_EXAMPLE: Final = 'write "${file:PATH}" or "${env:NAME}", such as "Bearer ${file:/run/secrets/key}"'


class Reference(NamedTuple):
    """A place that holds a secret.

    Attributes:
        name: of the variable, or the path of the file.
    """

    kind: Literal["env", "file"]
    name: str


Part: TypeAlias = str | Reference


class BadReference(ValueError):  # noqa: N818 - it is the reference that is bad
    """A text that cannot be used; `wrong` and `right` are as in a `Problem`, and quote nothing."""

    def __init__(self, wrong: str, right: str = _EXAMPLE) -> None:
        self.wrong = wrong
        self.right = right
        super().__init__(f"{wrong}; {right}")


def split_references(text: str) -> tuple[Part, ...]:
    """The parts of `text`, with at least one reference.

    Raises:
        BadReference: it refers to nothing, or holds what may be a secret itself.
    """
    parts: list[Part] = []
    end = 0
    for found in _FOUND.finditer(text):
        parts += _plain(text[end : found.start()])
        kind, name = cast("tuple[Literal['env', 'file'], str]", found.groups())
        if kind == "env" and not _ENV_NAME.fullmatch(name):
            raise BadReference("it refers to something that is no name of a variable")
        parts.append(Reference(kind, name))
        end = found.end()
    if not parts or end == 0:
        if "${" in text:
            raise BadReference("it refers to nothing that is known")
        raise BadReference("a secret does not belong into a configuration")
    parts += _plain(text[end:])
    return tuple(parts)


def _plain(text: str) -> list[Part]:
    if "${" in text:
        raise BadReference("it refers to something that is not known")
    if not _AROUND.fullmatch(text):
        raise BadReference("it has characters that a header cannot hold", "give printable ASCII")
    if len(text) > _MAX_AROUND_CHARS or redact_text(text) != text:
        raise BadReference(
            "what stands beside the reference may be a secret itself, and would be shown",
            "put all of it into the file or variable",
        )
    return [text] if text else []


def references_in(text: str) -> list[Reference]:
    """Those of a text that was checked."""
    return [part for part in split_references(text) if isinstance(part, Reference)]


def beside(text: str, directory: Path) -> str:
    """`text` with the relative paths of its files taken from `directory`."""

    def absolute(found: re.Match[str]) -> str:
        kind, name = found.groups()
        return f"${{file:{directory / name}}}" if kind == "file" else found.group()

    return _FOUND.sub(absolute, text)
