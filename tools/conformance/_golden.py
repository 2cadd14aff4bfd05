"""The captured calls of the published SDKs, byte for byte, as rules.

Only the deadline inside each frame, and the upstream's port where 4600 was taken, are replaced.
What must come back is what the published runtime answered: the same class, and every field of its
payload. Where PROTOCOL asks for better than it did, that is right as well (`_ALSO`).
"""

import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from struct import pack_into, unpack_from
from typing import Any, Final

from tools.conformance._peer import calling
from tools.conformance._rules import BrokenRuleError, Rule, must
from tools.conformance._upstream import GOLDEN_PORT
from tools.conformance._world import World
from vastar_client.wire import ErrorClass, ExecuteResponse

__all__ = ["golden_rules"]

_PATH: Final = Path(__file__).parents[2] / "tests" / "golden" / "published_sdk_frames.json"
_DEADLINE_SLOT: Final = 6
_BODY_AT: Final = 5
_ALSO: Final = {
    "bad_method": ErrorClass.INVALID_REQUEST,
    "empty_url": ErrorClass.INVALID_REQUEST,
    "request_timeout_400": ErrorClass.TIMEOUT,
    "client_timeout_400": ErrorClass.TIMEOUT,
}

_Frame = Mapping[str, Any]


@cache
def _frames() -> tuple[_Frame, ...]:
    return tuple(json.loads(_PATH.read_text(encoding="utf-8"))["frames"])


def golden_rules() -> list[Rule]:
    """A rule for each scenario that was captured.

    Raises:
        OSError: the captures are not there: they come with the repository, not with a wheel.
    """
    scenarios: dict[tuple[str, str], list[_Frame]] = {}
    for frame in _frames():
        if frame["direction"] == "request":
            scenarios.setdefault((frame["sdk"], frame["scenario"]), []).append(frame)
    return [
        Rule(
            f"golden.{sdk}.{scenario.replace('_', '-')}",
            f"what the {sdk} SDK sent is answered as it was",
            partial(_replay, frames),
            base=True,
        )
        for (sdk, scenario), frames in scenarios.items()
    ]


def _captured(request: _Frame) -> _Frame | None:
    """The published runtime's answer; None where the SDK had left before it."""
    wanted = (request["sdk"], request["scenario"], request["fields"]["request_id"])
    for frame in _frames():
        key = (frame["sdk"], frame["scenario"], frame["fields"]["request_id"])
        if frame["direction"] != "request" and key == wanted:
            return frame
    return None


def _sent(request: _Frame, world: World) -> bytes:
    """The frame, with a deadline as far ahead as it was, and the upstream's port."""
    old, new = (b"127.0.0.1:%d" % port for port in (GOLDEN_PORT, world.upstream.port))
    assert len(old) == len(new)
    data = bytearray(bytes.fromhex(request["frame_hex"]).replace(old, new))
    table = _BODY_AT + unpack_from("<I", data, _BODY_AT)[0]
    vtable = table - unpack_from("<i", data, table)[0]
    slot = unpack_from("<H", data, vtable + 4 + 2 * _DEADLINE_SLOT)[0]
    deadline_ms = int(world.wall_clock_ms()) + request["deadline_minus_capture_ms"]
    pack_into("<Q", data, table + slot, deadline_ms)
    return bytes(data)


async def _replay(requests: list[_Frame], world: World) -> None:
    waiting = {request["fields"]["request_id"]: request for request in requests}
    async with calling(world) as peer:
        await peer.send_bytes(b"".join(_sent(request, world) for request in requests))
        for _ in requests:
            answer = await peer.answer()
            request = waiting.pop(answer.request_id, None)
            if request is None:
                raise BrokenRuleError(f"the id {answer.request_id} is of no call, or came twice")
            _compare(request, answer, world)
        await peer.silent()


def _compare(request: _Frame, answer: ExecuteResponse, world: World) -> None:
    captured = _captured(request)
    if answer.error_class is _ALSO.get(request["scenario"]) or captured is None:
        return
    expected_class = ErrorClass(captured["fields"]["error_class"])
    said = f"{answer.error_class.name} {answer.error_message or ''!r}"
    must(answer.error_class is expected_class, f"{said}, not {expected_class.name}")
    if expected_class is not ErrorClass.SUCCESS:
        return
    old, new = (f"127.0.0.1:{port}" for port in (GOLDEN_PORT, world.upstream.port))
    expected = json.loads(captured["payload_text"].replace(old, new))
    got = json.loads(bytes(answer.payload or b""))  # type: ignore[arg-type]  # one buffer
    is_echo = "x-rig-reply" in expected["headers"]
    if is_echo:
        # A trace id may go upstream as one more header, and change the length.
        del expected["headers"]["content-length"]
        _compare_echoes(json.loads(expected.pop("body")), json.loads(got.get("body", "{}")))
    headers = got.get("headers", {})
    for name, value in expected.pop("headers").items():
        must(headers.get(name) == value, f"header {name}: {headers.get(name)!r}, not {value!r}")
    for key, value in expected.items():
        must(got.get(key) == value, f"{key}: {got.get(key)!r:.60}, not {value!r:.60}")


def _compare_echoes(expected: Any, got: Any) -> None:
    """What the upstream saw: the same, and every header of then."""
    seen = {tuple(header) for header in got.get("headers", ())}
    for name, value in expected.pop("headers"):
        must((name, value) in seen, f"the upstream did not see {name}: {value}")
    for key, value in expected.items():
        must(got.get(key) == value, f"the upstream saw {key} {got.get(key)!r}, not {value!r}")
