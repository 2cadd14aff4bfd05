"""Secrets that tests plant: every one holds `planted-`, and none may be told to anybody.

`watch` looks at all that a test has logged, wherever that goes; `values_that_show` asks each value
of our own classes that is alive for its `repr`. A test that fails for what is found here names the
secret, which is none.
"""

import gc
from collections.abc import Iterable, Iterator
from typing import Any, Final

from vastar_runtime.log_sink import LineSink

__all__ = ["MARK", "refuse", "told", "values_that_show", "watch"]

MARK: Final = "planted-"
_OURS: Final = ("vastar_client", "vastar_runtime")
_CONTAINERS: Final = (dict, list, tuple, set, frozenset)
_logged: Final[list[str]] = []


def watch() -> None:
    """From now on look at each line that is logged, in every test of this process."""
    write = LineSink._write
    mark = MARK.encode()

    def watched(sink: LineSink, lines: bytes) -> None:
        if mark in lines:
            found = (line for line in lines.splitlines() if mark in line)
            _logged.extend(line.decode(errors="replace") for line in found)
        write(sink, lines)

    LineSink._write = watched  # type: ignore[method-assign]


def told(captured: Iterable[str] = ()) -> list[str]:
    """The lines with a secret since the last time; `captured` is what a test wrote itself."""
    found = [*_logged, *(line for text in captured for line in text.splitlines() if MARK in line)]
    _logged.clear()
    return found


def refuse(text: str) -> None:
    """Fail where `text` tells a secret."""
    found = [line for line in text.splitlines() if MARK in line]
    assert not found, f"a secret was told: {found[0]}"


def values_that_show() -> tuple[int, list[str]]:
    """How many values of ours are alive, and what those say of themselves that tell a secret."""
    found: list[str] = []
    values = list(_ours(gc.get_objects()))
    for value in values:
        kind = type(value).__qualname__
        found += [f"{kind}: {text[:300]}" for text in _texts(value) if MARK in text]
    return len(values), found


def _ours(objects: Iterable[object]) -> Iterator[object]:
    """Those of our classes, and those that they hold: not all are known to the collector."""
    seen: set[int] = set()
    waiting = [each for each in objects if _is_ours(each)]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if _is_ours(value):
            yield value
        waiting += [
            each
            for each in gc.get_referents(value)
            if _is_ours(each) or isinstance(each, _CONTAINERS)
        ]


def _is_ours(value: object) -> bool:
    if isinstance(value, type):
        return False
    module = str(type(value).__module__)
    is_script = module.startswith("vastar_runtime.transport.fake")  # what a test says, in the clear
    return module.partition(".")[0] in _OURS and not is_script


def _texts(value: Any) -> Iterator[str]:
    yield repr(value)
    yield str(value)
    shown = getattr(type(value), "__rich_repr__", None)
    if shown is not None:
        yield repr(list(shown(value)))
