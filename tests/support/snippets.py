"""The fenced blocks of a Markdown page as tests: which are run together, and what they must print.

`<!-- sequence: NAME -->` on the line before a block lets it share the names of the earlier blocks
of that sequence. A ```text block right behind a ```python block is what that block prints; a block
without one prints nothing. There is no mark for a block that is not run.
"""

import inspect
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import attrs

__all__ = ["Fence", "Snippet", "fences", "missing_messages", "run", "sequences"]

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SEQUENCE = re.compile(r"^<!-- sequence: (\w+) -->\n\Z", re.MULTILINE)


@attrs.frozen
class Fence:
    """One fenced block.

    Attributes:
        line: of its first line of text, in the page.
        before: what is between it and the block before.
    """

    language: str
    text: str
    line: int
    before: str


@attrs.frozen
class Snippet:
    """A Python block and what it prints."""

    path: Path
    fence: Fence
    prints: str

    @property
    def code(self) -> Any:
        """Compiled so that a traceback names the page and its line."""
        source = "\n" * (self.fence.line - 1) + self.fence.text
        return compile(source, str(self.path), "exec", dont_inherit=True)


def fences(path: Path) -> list[Fence]:
    """Every fenced block of a page."""
    page = path.read_text(encoding="utf-8")
    found, end = [], 0
    for match in _FENCE.finditer(page):
        line = page.count("\n", 0, match.start()) + 2
        found.append(Fence(match[1], match[2], line, page[end : match.start()]))
        end = match.end()
    return found


def _snippets(path: Path) -> Iterator[Snippet]:
    blocks = fences(path)
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language != "python":
            continue
        shows = after is not None and after.language == "text" and not after.before.strip()
        yield Snippet(path, block, after.text if after is not None and shows else "")


def sequences(path: Path) -> dict[str, list[Snippet]]:
    """The Python blocks of a page, those of a sequence together, the others each alone."""
    found: dict[str, list[Snippet]] = {}
    for snippet in _snippets(path):
        named = _SEQUENCE.search(snippet.fence.before)
        name = named[1] if named else f"line {snippet.fence.line}"
        found.setdefault(name, []).append(snippet)
    return found


def run(snippets: list[Snippet]) -> None:
    """Run blocks one after the other with the same names; the tests that they define as well."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for snippet in snippets:
        known = set(names)
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(snippet.code, names)  # running what the page shows is the point
            for name in names.keys() - known:
                if name.startswith("test_") and inspect.isfunction(names[name]):
                    names[name]()
        said = printed.getvalue()
        if said != snippet.prints:
            place = f"{snippet.path.name}:{snippet.fence.line}"
            raise AssertionError(f"{place} prints\n{said}\nand is said to print\n{snippet.prints}")


_JOINED_TEXT = re.compile(r"""["']\s*\n\s*f?["']""")
_PLACEHOLDER = re.compile(r"\.\.\.|\b[A-Z]+\b|\b\d+\b|[()]")
_SHORTEST_FRAGMENT = 6


def missing_messages(page: str, known: str, root: Path) -> list[str]:
    """Fragments of the messages in a page's section "Troubleshooting" that nothing says.

    Args:
        page: its text; a message is a code span with a space in the first column of the table.
        known: text that was compared with what is really printed.
        root: the repository, whose sources are the other place to find a message in.
    """
    rooms = ("vastar_client", "vastar_runtime")
    sources = [file.read_text() for room in rooms for file in (root / room).rglob("*.py")]
    haystack = known + _JOINED_TEXT.sub("", "\n".join(sources))
    section = page.partition("## Troubleshooting\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    messages = [text for cell in cells for text in re.findall(r"`([^`]+ [^`]+)`", cell)]
    assert messages
    fragments = [part.strip(" ,:;") for text in messages for part in _PLACEHOLDER.split(text)]
    return [f for f in fragments if len(f) >= _SHORTEST_FRAGMENT and f not in haystack]
