"""A failing input made smaller while it fails in the same way. Nothing runs but the target."""

import traceback
from collections.abc import Callable, Iterator

import attrs

from tools.fuzz.targets import Check

__all__ = ["Failure", "failure_of", "shrunk"]


@attrs.frozen
class Failure:
    """How an input fails; equal ones are taken for the same bug.

    Attributes:
        kind: of the exception.
        place: function and line that raised it.
        words: what it said; not compared.
    """

    kind: str
    place: str
    words: str = attrs.field(eq=False)


def failure_of(check: Check, data: bytes) -> Failure | None:
    """How `data` fails, None where it does not."""
    try:
        check(data)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Failure(type(error).__name__, f"{last.name}:{last.lineno}", str(error))
    return None


def shrunk(check: Check, data: bytes, most_tries: int = 5000) -> bytes:
    """The smallest input found that fails as `data` does; `data` where it does not fail.

    Runs of bytes are left out, ever shorter ones (delta debugging, Zeller 2002), then single bytes
    made 0.
    """
    wanted = failure_of(check, data)
    if wanted is None:
        return data
    tries = 0

    def fails(candidate: bytes) -> bool:
        nonlocal tries
        tries += 1
        return failure_of(check, candidate) == wanted

    has_changed = True
    while has_changed and tries < most_tries:
        has_changed = False
        for smaller in (_without_runs, _with_zeros):
            found = _first(smaller(data), fails, most_tries - tries)
            if found is not None:
                data, has_changed = found, True
                break
    return data


def _first(candidates: Iterator[bytes], fails: Callable[[bytes], bool], most: int) -> bytes | None:
    for tried, candidate in enumerate(candidates):
        if tried >= most:
            return None
        if fails(candidate):
            return candidate
    return None


def _without_runs(data: bytes) -> Iterator[bytes]:
    size = len(data)
    while size:
        for start in range(0, len(data), size):
            yield data[:start] + data[start + size :]
        size //= 2


def _with_zeros(data: bytes) -> Iterator[bytes]:
    for at, byte in enumerate(data):
        if byte:
            yield data[:at] + b"\0" + data[at + 1 :]
