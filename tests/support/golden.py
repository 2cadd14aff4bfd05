"""The captured frames of the published SDKs and runtime, as values.

They are kept as one text file (hex), because binaries do not belong into the repository's history.
`fields` and `payload` were read by an independent decoder at capture time: what a codec of ours
says about `frame` must agree with them.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

__all__ = ["GoldenFrame", "exchanges", "load"]

PATH = Path(__file__).resolve().parent.parent / "golden" / "published_sdk_frames.json"


@attrs.frozen
class GoldenFrame:
    """One frame as it stood on the wire.

    Attributes:
        name: `sdk.scenario.reqNN` or `sdk.scenario.respNN`.
        frame: the whole frame: length prefix, type byte, FlatBuffer.
        fields: what the frame says, by field name; `present` lists the slots in its vtable.
        payload: the payload as text; None where it was absent or no text.
        payload_bytes: the payload's length; 0 where it was absent.
        deadline_minus_capture_ms: of requests, how far ahead the deadline was when sent.
    """

    name: str
    sdk: str
    scenario: str
    direction: str
    seq: int
    message_type: int
    fields: Mapping[str, Any]
    payload: str | None
    payload_bytes: int
    deadline_minus_capture_ms: int | None
    frame: bytes = attrs.field(repr=False)

    @property
    def is_request(self) -> bool:
        """Whether an SDK sent it (else the published runtime did)."""
        return self.direction == "request"

    @property
    def flatbuffer(self) -> bytes:
        """The bytes behind length prefix and type byte."""
        return self.frame[5:]


def _frame(entry: Mapping[str, Any]) -> GoldenFrame:
    return GoldenFrame(
        name=entry["name"],
        sdk=entry["sdk"],
        scenario=entry["scenario"],
        direction=entry["direction"],
        seq=entry["seq"],
        message_type=entry["message_type"],
        fields=entry["fields"],
        payload=entry.get("payload_text"),
        payload_bytes=entry["payload_bytes"] or 0,
        deadline_minus_capture_ms=entry.get("deadline_minus_capture_ms"),
        frame=bytes.fromhex(entry["frame_hex"]),
    )


@functools.cache
def load() -> tuple[GoldenFrame, ...]:
    """All frames, in the order of capture."""
    return tuple(_frame(entry) for entry in json.loads(PATH.read_text())["frames"])


@functools.cache
def exchanges() -> tuple[tuple[GoldenFrame, GoldenFrame | None], ...]:
    """Each request with its answer, matched by request_id; None where the SDK left before it.

    Ids are matched within one SDK and scenario. An answer to a request that could not be read
    would carry id 0; there is none among the captures.
    """
    answers = {(f.sdk, f.scenario, f.fields["request_id"]): f for f in load() if not f.is_request}
    return tuple(
        (f, answers.get((f.sdk, f.scenario, f.fields["request_id"])))
        for f in load()
        if f.is_request
    )
