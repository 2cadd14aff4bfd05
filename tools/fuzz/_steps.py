"""Steps of an attack as plain values, and the file in which they are kept.

The file is JSON, one object, meant to be read by people too: `rule` and `what` say what broke,
each step is `[what, connection, argument]`, bytes are hexadecimal. Ports of the fuzzer's upstream
stand in the bytes of requests; they have five digits, so a replay puts its own in their place.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

__all__ = ["KINDS", "Recording", "Step", "load", "save"]

KINDS: Final = ("open", "send", "eof", "close", "wait", "arrived", "pause")
_FORMAT: Final = 1


@attrs.frozen
class Step:
    """One thing done to a runtime.

    Attributes:
        kind: `open` a connection, `send` bytes, half-close (`eof`), `close`, `wait` for all
            answers that are certain to come, wait until the upstream has a request (`arrived`), or
            `pause` for 50 ms.
        connection: its number in the attack.
        data: what to send; the token of a request for `arrived`.
    """

    kind: str
    connection: int = 0
    data: bytes = b""


@attrs.frozen
class Recording:
    """An attack that broke a rule.

    Attributes:
        steps: in their order.
        rule: the broken one.
        what: what was seen.
        profile: of the attack.
        base: whether only the published protocol was spoken.
        ports: of the upstream, as in the bytes; none were used if empty.
        salt: begins its tokens; each replay puts another in its place.
    """

    steps: tuple[Step, ...]
    rule: str
    what: str
    profile: str
    base: bool
    ports: tuple[int, ...] = ()
    salt: str = ""

    @property
    def sent_bytes(self) -> int:
        """How many bytes it sends."""
        return sum(len(step.data) for step in self.steps if step.kind == "send")


def save(recording: Recording, path: Path) -> None:
    """Write `recording`, over whatever is at `path`."""
    value = {
        "format": _FORMAT,
        "rule": recording.rule,
        "what": recording.what,
        "profile": recording.profile,
        "base": recording.base,
        "ports": recording.ports,
        "salt": recording.salt,
        "steps": [[step.kind, step.connection, step.data.hex()] for step in recording.steps],
    }
    lines = json.dumps(value, indent=1)
    path.write_text(lines + "\n")


def load(path: Path) -> Recording:
    """Read what `save` wrote.

    Raises:
        ValueError: it is no such file, or of another format.
    """
    value = json.loads(path.read_text())
    if not isinstance(value, Mapping) or value.get("format") != _FORMAT:
        raise ValueError(f"{path} is no recording of format {_FORMAT}")
    return Recording(
        steps=tuple(_step(item) for item in value["steps"]),
        rule=str(value["rule"]),
        what=str(value["what"]),
        profile=str(value["profile"]),
        base=bool(value["base"]),
        ports=tuple(int(port) for port in value["ports"]),
        salt=str(value["salt"]),
    )


def _step(item: Sequence[Any]) -> Step:
    kind, connection, data = item
    if kind not in KINDS:
        raise ValueError(f"unknown step {kind!r}: known are {', '.join(KINDS)}")
    return Step(kind, int(connection), bytes.fromhex(data))
