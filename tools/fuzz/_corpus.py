"""The corpus of each target as text: `tests/fuzz_corpus/TARGET.txt`.

One case is a line with what it is, behind `#`, and a line with its bytes: printable ASCII as it
is, all else as Python escapes it. Text, so that a review can read what a crash was, and so that
no binaries come into the history.
"""

from collections.abc import Iterable
from pathlib import Path

import attrs

__all__ = ["CORPUS", "Case", "append", "escaped", "load", "parsed", "unescaped"]

CORPUS = Path(__file__).resolve().parent.parent.parent / "tests" / "fuzz_corpus"
_HEAD = """\
## {name}: {says}
## `python -m tools.fuzz.coverage {name} --add FILE --says WORDS` appends to it.
"""


@attrs.frozen
class Case:
    """One input, and what it is."""

    says: str
    data: bytes


def escaped(data: bytes) -> str:
    """`data` on one line of ASCII, without blanks at its ends, and never looking like a comment."""
    text = data.decode("latin-1").encode("unicode_escape").decode("ascii")
    if text.startswith(("#", " ")):
        text = f"\\x{ord(text[0]):02x}" + text[1:]
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def unescaped(line: str) -> bytes:
    """The bytes of a line.

    Raises:
        ValueError: it is no such line.
    """
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")


def parsed(text: str) -> list[Case]:
    """The cases of a corpus file.

    Raises:
        ValueError: a case has no words, words have no case, or a line is no bytes.
    """
    cases = []
    says = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("##") or not line.strip():
            continue
        if line.startswith("#"):
            if says:
                raise ValueError(f"line {number}: no bytes for {says!r}")
            says = line.lstrip("# ").strip()
        elif not says:
            raise ValueError(f"line {number}: a case without words")
        else:
            cases.append(Case(says, b"" if line == "(nothing)" else unescaped(line)))
            says = ""
    if says:
        raise ValueError(f"no bytes for {says!r}")
    return cases


def load(name: str, folder: Path = CORPUS) -> list[Case]:
    """The cases of a target, none where it has no file yet."""
    path = folder / f"{name}.txt"
    return parsed(path.read_text("ascii")) if path.is_file() else []


def append(name: str, says: str, cases: Iterable[Case], folder: Path = CORPUS) -> int:
    """Append cases that are not there yet; how many were.

    Args:
        name: of the target.
        says: what the target is, for the head of a new file.
        cases: their words are made one line of ASCII.
        folder: of the corpus.
    """
    known = {case.data for case in load(name, folder)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.txt"
    lines = [] if path.is_file() else [_HEAD.format(name=name, says=says)]
    new = 0
    for case in cases:
        if case.data in known:
            continue
        known.add(case.data)
        words = " ".join(case.says.encode("ascii", "replace").decode().split())
        lines.append(f"# {words}\n{escaped(case.data) or '(nothing)'}\n")
        new += 1
    with path.open("a", encoding="ascii") as file:
        file.write("".join(lines))
    return new
