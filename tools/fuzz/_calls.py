"""The judge of one call: what its request asks for, and which answers may follow.

What is not understood for certain is not judged: a request whose payload was spoiled, or that is
cancelled, may end in many ways, but always in exactly one final frame with the fields that
every final frame must have.
"""

import json
import re
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs

from tools.fuzz._circuits import Circuits
from tools.fuzz._upstream import SHARED, STEADY, pattern
from tools.fuzz._violation import Violation
from vastar_client.wire import (
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    PayloadFormat,
    StreamChunk,
    StreamEnd,
    StreamStart,
    decode_http_request,
    decode_http_response,
)
from vastar_client.wire.codec import MalformedError, one_buffer
from vastar_client.wire.enums import ResponseFormat
from vastar_client.wire.limits import INITIAL_STREAM_WINDOW_BYTES

__all__ = ["NOISY", "Call", "Hits", "Target", "call_of"]

NOISY: Final = "noisy"
"""How tenants begin that ask the shared origin for what fails; it never fails any other."""

_DATABASES: Final = frozenset({"db", "postgres", "mysql"})
"""Without a source and an operation of theirs: not implemented (as published), or invalid."""
_PLAIN_ID_CHARACTERS: Final = 256
_SURELY_PAST_S: Final = 86_400
_SOON_MS: Final = 1_000
_PARTS: Final = 3


class Hits(Protocol):
    """What the judge asks the upstream."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Steady, troubled, shared."""

    def hits(self, token: str) -> int:
        """How many requests came with `token`."""


@attrs.frozen
class Target:
    """A request to the fuzzer's upstream: what it asks, its token, and on which port.

    Attributes:
        is_steady: it never failed this tenant, as the runtime sees it.
        is_prompt: it fails at once, where it does, and is not tried again.
    """

    what: str
    token: str
    size: int
    is_steady: bool
    timeout_ms: int
    is_native: bool
    origin: str = ""
    is_prompt: bool = False


def _target_of(request: ExecuteRequest, hits: Hits | None) -> Target | None:
    if hits is None or request.connector_name != "http" or request.payload is None:
        return None
    payload = bytes(one_buffer(request.payload))
    try:
        if request.payload_format is PayloadFormat.NATIVE:
            native = decode_http_request(payload)
            url, timeout_ms, method = native.url, native.timeout_ms, native.method
        else:
            value: Any = json.loads(payload)
            url, timeout_ms = value["url"], value.get("timeout_ms", 0)
            method = value.get("method", "GET")
            if set(value) - {"url", "timeout_ms", "method"}:
                return None
    except (MalformedError, ValueError, KeyError, TypeError, AttributeError):
        return None
    origins = {f"http://127.0.0.1:{port}": number for number, port in enumerate(hits.ports)}
    parts = url.split("/") if isinstance(url, str) else []
    origin = "/".join(parts[:_PARTS])
    if origin not in origins or len(parts) < _PARTS + 2 or method not in {"GET", "POST"}:
        return None
    answers_native = request.response_format is ResponseFormat.NATIVE or (
        request.response_format is ResponseFormat.AS_REQUEST
        and request.payload_format is PayloadFormat.NATIVE
    )
    what, token, *rest = parts[_PARTS:]
    size = int(rest[0]) if rest and rest[0].isdigit() else 0
    number = origins[origin]
    is_noisy = request.tenant_id.startswith(NOISY)
    return Target(
        what,
        token,
        size,
        number == STEADY or (number == SHARED and not is_noisy),
        int(timeout_ms),
        answers_native,
        origin,
        number == SHARED and (what != "503" or method == "POST"),
    )


@attrs.define(eq=False)
class Call:
    """One request and what came for it.

    Attributes:
        request: as sent.
        target: what it asks of our upstream, if that is certain.
        was_cancelled: a Cancel was sent while it was open.
        may_be_refused: its stream's id may have been in flight, or it cannot go on.
        shares_id: of another open call: only how many answers come is certain, not which is whose.
        granted_bytes: of its stream, the window at the start included.
        received_bytes: of its stream.
        has_started: its head came.
        body_has_ended: the last chunk of its request's body was sent.
        body_bytes: of its request's body, sent.
        body_granted_bytes: of it, beyond the window at the start.
        circuits: what is known of them, where they are judged.
        sent_at_s: when its request was about to be sent.
    """

    request: ExecuteRequest
    hits: Hits | None
    target: Target | None
    was_cancelled: bool = False
    may_be_refused: bool = False
    shares_id: bool = False
    granted_bytes: int = INITIAL_STREAM_WINDOW_BYTES
    received_bytes: int = 0
    has_started: bool = False
    body_has_ended: bool = False
    body_bytes: int = 0
    body_granted_bytes: int = 0
    circuits: Circuits | None = None
    sent_at_s: float = attrs.field(factory=time.monotonic)
    _sequence: int = 0

    @property
    def is_plain(self) -> bool:
        """Nothing about it but its payload decides its answer."""
        request = self.request
        names = (request.tenant_id, request.workspace_id or "", request.trace_id or "")
        return (
            not (self.was_cancelled or self.may_be_refused or request.body_follows)
            and not self.shares_id
            and (request.request_id != 0 or not request.stream)
            and all(len(name) <= _PLAIN_ID_CHARACTERS and name.isascii() for name in names)
            and not request.headers
        )

    @property
    def is_past(self) -> bool:
        """Its deadline is over for certain."""
        return 0 < self.request.deadline_at_ms < (time.time() - _SURELY_PAST_S) * 1000

    @property
    def is_far(self) -> bool:
        """Its deadline does not matter here."""
        at_ms = self.request.deadline_at_ms
        return at_ms == 0 or at_ms > (time.time() + _SURELY_PAST_S) * 1000

    @property
    def ends_by_itself(self) -> bool:
        """It is certain to be answered soon, whatever else its connection does."""
        if self.was_cancelled or (self.is_past and not self.shares_id):
            return True
        if self.shares_id or (self.request.body_follows and not self.body_has_ended):
            return False
        if self.request.connector_name != "http":
            return True
        target = self.target
        if target is None:
            return False
        if self.request.stream and target.size > self.granted_bytes:
            return False
        if target.what == "hang":
            return 0 < target.timeout_ms <= _SOON_MS
        return target.is_steady or target.is_prompt

    def starts(self, message: StreamStart) -> None:
        """The head of its stream came."""
        if self.has_started:
            raise Violation("one head for a stream", f"a second StreamStart: {message}")
        if self.target is not None and message.status_code not in {200, 503}:
            raise Violation("true answers", f"the upstream never answered {message.status_code}")
        self.has_started = True

    def chunk(self, message: StreamChunk) -> None:
        """A piece of its stream came."""
        if not self.has_started:
            raise Violation("a stream begins with its head", f"first came {message}")
        if message.sequence != self._sequence:
            raise Violation("chunks in order", f"{message} where {self._sequence} was due")
        data = bytes(one_buffer(message.data)) if message.data is not None else b""
        target = self.target
        is_known = target is not None and target.what == "stream"
        if is_known and data != pattern(self.received_bytes, len(data)):
            raise Violation("true bytes", f"{message} holds other bytes than the upstream sent")
        self._sequence += 1
        self.received_bytes += len(data)
        if self.received_bytes > self.granted_bytes:
            raise Violation(
                "the window of a stream",
                f"{self.received_bytes} bytes came where {self.granted_bytes} were granted",
            )

    def ends(self, final: ExecuteResponse | StreamEnd, *, is_base: bool) -> None:
        """Its final frame came."""
        is_success = final.error_class is ErrorClass.SUCCESS
        if is_success and final.error_message:
            raise Violation("success has no message", str(final))
        if not is_success and not final.error_message:
            raise Violation("a failure has a message", str(final))
        if isinstance(final, ExecuteResponse):
            has_payload = final.payload is not None and len(final.payload) > 0
            if is_success != has_payload:
                raise Violation("payloads on success only", str(final))
        elif final.total_bytes != self.received_bytes:
            raise Violation(
                "the total of a stream", f"{final} where {self.received_bytes} bytes had come"
            )
        if not is_base:
            self._judge_disposition(final)
            self._judge_breaker(final)
            self._judge_upload(final)
            if final.error_message == "internal error":
                raise Violation("no bugs are told", f"{final} to {self.request}")
        if is_success and self.target is not None and not self.shares_id:
            self._judge_body(self.target, final)
        is_sound = self.target is not None or (
            self.request.connector_name in _DATABASES and not self.request.stream
        )
        if self.is_plain and self.is_past and not is_base and is_sound:
            _demand(final, ErrorClass.TIMEOUT, "a deadline in the past is a timeout")
        elif self.is_plain and self.is_far:
            self._judge_meaning(final, is_base=is_base)

    def settled(self, final: ExecuteResponse | StreamEnd) -> None:
        """Everything is quiet: what the upstream has seen is all that it will see."""
        self._judge_disposition(final)

    def _judge_disposition(self, final: ExecuteResponse | StreamEnd) -> None:
        is_success = final.error_class is ErrorClass.SUCCESS
        if is_success and final.disposition is not Disposition.COMPLETED:
            raise Violation("success is completed", str(final))
        if self.target is None or self.hits is None or self.shares_id:
            return
        count = self.hits.hits(self.target.token)
        if final.disposition is Disposition.NOT_SENT and count:
            raise Violation("not sent is true", f"{final}, but the upstream has the request")
        if is_success and not count:
            raise Violation("no answer is invented", f"{final}, but the upstream never was asked")
        if count > max(final.attempts, 1):
            raise Violation("attempts are true", f"{final}, but the upstream had it {count} times")
        if final.disposition > Disposition.SENT_NO_RESPONSE and self.target.what == "hang":
            raise Violation("true dispositions", f"{final}, but the upstream said nothing")

    def _judge_breaker(self, final: ExecuteResponse | StreamEnd) -> None:
        is_refused = (final.refused_by or "").startswith("circuit_breaker")
        if self.target is None or self.shares_id:
            return
        if is_refused and self.target.is_steady:
            raise Violation("circuits open for a reason", f"{final}: this origin never failed")
        if self.circuits is not None:
            tenant = self.request.tenant_id, self.target.origin
            if final.disposition is Disposition.NOT_SENT and is_refused:
                self.circuits.refused(tenant, self.sent_at_s, final)
            elif final.disposition > Disposition.NOT_SENT:
                self.circuits.went_out(tenant, self.sent_at_s, final)

    def _judge_upload(self, final: ExecuteResponse | StreamEnd) -> None:
        """What was granted by now was granted before it was taken: more cannot end well."""
        granted = INITIAL_STREAM_WINDOW_BYTES + self.body_granted_bytes
        is_success = final.error_class is ErrorClass.SUCCESS
        if is_success and not self.shares_id and self.body_bytes > granted:
            raise Violation(
                "the window of a body",
                f"{final}: {self.body_bytes} bytes were taken where {granted} were granted",
            )

    def _judge_meaning(self, final: ExecuteResponse | StreamEnd, *, is_base: bool) -> None:
        connector = self.request.connector_name
        if self.request.stream and connector != "http":
            return  # that they do not stream may be said first
        if connector in _DATABASES and final.error_class is not ErrorClass.INVALID_REQUEST:
            _demand(final, ErrorClass.PERMANENT, f"connector {connector} was asked for nothing")
        elif connector not in {"http", "vastar"}:
            _demand(final, ErrorClass.INVALID_REQUEST, "an unknown connector is refused")
        elif self.target is not None and self.target.is_steady:
            self._judge_steady(self.target, final)
        elif is_base and final.error_class is ErrorClass.TRANSIENT:
            return  # so the published runtime says that time is over
        elif self.target is not None and self.target.what == "hang" and not final.refused_by:
            _demand(final, ErrorClass.TIMEOUT, "its time is over")

    def _judge_steady(self, target: Target, final: ExecuteResponse | StreamEnd) -> None:
        if target.what != "hang" and not target.timeout_ms:
            _demand(final, ErrorClass.SUCCESS, f"the upstream answered /{target.what}")

    def _judge_body(self, target: Target, final: ExecuteResponse | StreamEnd) -> None:
        """An answer is what the upstream said, to this call and to no other."""
        if target.what in {"hang", "reset"}:
            raise Violation("no answer is invented", f"{final}, but the upstream said nothing")
        if isinstance(final, StreamEnd):
            if target.what == "stream" and self.received_bytes != target.size:
                raise Violation("whole streams", f"{final} where {target.size} bytes were due")
            return
        read = _read_native if target.is_native else _read_json
        try:
            status, body = read(bytes(one_buffer(final.payload)))
        except (MalformedError, ValueError, KeyError, AttributeError) as error:
            raise Violation("payloads are readable", f"{final}: {error}") from None
        said = {
            "ok": (200, f"ok {target.token}".encode()),
            "late": (200, f"ok {target.token}".encode()),
            "503": (503, f"no {target.token}".encode()),
            "stream": (200, pattern(0, target.size)),
        }.get(target.what)
        if target.what == "sum" and not re.fullmatch(rb"\d+ \d+", body or b""):
            raise Violation("true answers", f"{final} is not what the upstream said to this call")
        if said is not None and (status, body if body is not None else said[1]) != said:
            raise Violation("true answers", f"{final} is not what the upstream said to this call")


def _read_native(payload: bytes) -> tuple[int, bytes]:
    answer = decode_http_response(payload)
    return answer.status_code, bytes(one_buffer(answer.body)) if answer.body is not None else b""


def _read_json(payload: bytes) -> tuple[int, bytes | None]:
    """Bodies that are no text have other forms, which are not the wire's business."""
    answer = json.loads(payload)
    is_text = "body_base64" not in answer
    return answer["status_code"], answer["body"].encode() if is_text else None


def _demand(final: ExecuteResponse | StreamEnd, wanted: ErrorClass, why: str) -> None:
    if final.error_class is not wanted:
        raise Violation("error classes are true", f"{final}: {wanted.name} was due, as {why}")


CallMaker = Callable[[ExecuteRequest], Call]


def call_of(request: ExecuteRequest, hits: Hits | None, circuits: Circuits | None = None) -> Call:
    """The call that `request` begins; `hits` is our upstream, if it may ask that."""
    return Call(request, hits, _target_of(request, hits), circuits=circuits)
