"""`fbs/vastar_ipc.fbs` as values, read from its text and from nothing of ours.

What the tests hold the codec against: a field that is changed in one place only fails here.
"""

import re
from pathlib import Path

import attrs

__all__ = ["ENUMS", "TABLES", "SchemaField", "snake"]

_TEXT = (Path(__file__).resolve().parents[3] / "fbs" / "vastar_ipc.fbs").read_text()
_LINE = re.compile(r"^\s*(\w+): ([\w\[\]]+)(?: = (\w+))? \(id: (\d+)(, required)?\);$")
_MEMBER = re.compile(r"^\s*(\w+) = (\d+),$")


@attrs.frozen
class SchemaField:
    """One line of a table; `enum` names the enumeration that `type` is, if it is one."""

    name: str
    type: str
    default: object
    slot: int
    required: bool
    enum: str | None

    @property
    def accessor(self) -> str:
        """The name that the generated code gives it."""
        return "".join(part.capitalize() for part in self.name.split("_"))


def _blocks(kind: str) -> dict[str, list[str]]:
    found = re.findall(rf"^{kind} (\w+)[^{{]*\{{(.*?)^\}}", _TEXT, re.MULTILINE | re.DOTALL)
    return {name: [line for line in body.splitlines() if line.strip()] for name, body in found}


def _members(lines: list[str]) -> dict[str, int]:
    matches = [_MEMBER.match(line) for line in lines if "///" not in line]
    return {match[1]: int(match[2]) for match in matches if match}


ENUMS = {name: _members(lines) for name, lines in _blocks("enum").items()}


def _default(type_: str, written: str | None) -> object:
    if type_ == "string" or type_.startswith("["):
        return None
    if type_ == "bool":
        return written == "true"
    return ENUMS[type_][written] if written in ENUMS.get(type_, {}) else int(written or 0)


def _fields(lines: list[str]) -> tuple[SchemaField, ...]:
    fields = []
    for line in lines:
        if "///" in line:
            continue
        match = _LINE.match(line)
        assert match, f"not understood: {line}"
        name, type_, written, slot, required = match.groups()
        enum = type_ if type_ in ENUMS else None
        default = _default(type_, written)
        fields.append(SchemaField(name, type_, default, int(slot), bool(required), enum))
    assert [field.slot for field in fields] == list(range(len(fields)))
    return tuple(fields)


TABLES = {name: _fields(lines) for name, lines in _blocks("table").items()}


def snake(name: str) -> str:
    """`RateLimited` as our enumerations spell it: `RATE_LIMITED`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
