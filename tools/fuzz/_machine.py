"""The stateful machines: Hypothesis rules that draw the steps of an attack.

One rule is one thing a caller may do, and each profile is a set of them. What all of them share is
in `_session`.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tools.fuzz import strategies
from tools.fuzz._calls import NOISY
from tools.fuzz._session import Machine, Session
from tools.fuzz._upstream import SHARED, STEADY, TROUBLED
from vastar_client.wire import Cancel, CreditUpdate, ExecuteRequest, HealthCheck, RequestChunk

__all__ = ["PROFILES", "machine"]

_SIZES: Final = (0, 1, 251, 60_000, 65_536, 65_537, 200_000)


class _Wire(Machine):
    """Bytes and buffers; no upstream."""

    @rule(data=st.data())
    def spoiled_buffer(self, data: st.DataObject) -> None:
        """Level 2."""
        connection = self._pick(data)
        level = strategies.buffer_level(is_base=self.session.is_base)
        self._send(connection, self._draw_pieces(data, level))

    @precondition(lambda self: not self.session.is_base)
    @rule(data=st.data())
    def spoiled_framing(self, data: st.DataObject) -> None:
        """Level 1; mostly the connection's last words."""
        connection = self._pick(data)
        self._send(connection, self._draw_pieces(data, strategies.byte_level()))

    @precondition(lambda self: not self.session.is_base)
    @rule(data=st.data())
    def half_close(self, data: st.DataObject) -> None:
        """Our half ends; the answers still come."""
        connection = self._pick(data, whole=False)
        if connection is not None:
            self._rest.pop(connection, None)
            self._do("eof", connection)


class _Calls(Machine):
    """Calls that reach the upstream."""

    def _url(self, path: str, *, port: int = STEADY, size: int | None = None) -> str:
        upstream = self._world.upstream
        assert upstream is not None
        self._next_token += 1
        tail = "" if size is None else f"/{size}"
        token = f"{self._world.salt}t{self._next_token}"
        return f"http://127.0.0.1:{upstream.ports[port]}/{path}/{token}{tail}"

    def _draw_id(self, data: st.DataObject) -> Callable[[int], int]:
        """Of a call that is open on a connection, mostly."""
        other = data.draw(strategies.ids())
        drawn = data.draw(st.integers(0, 11))

        def choose(connection: int) -> int:
            model = self._world.connections[connection].model
            open_ids = sorted({call.request.request_id for call in model.owed})
            return open_ids[drawn % len(open_ids)] if open_ids and drawn else other

        return choose

    def _draw_new_id(self, data: st.DataObject) -> int:
        """Mostly of no other call, else nobody could tell whose answer is whose."""
        drawn = data.draw(st.integers(0, 5))
        other = data.draw(strategies.ids(with_zero=False))
        return other if drawn == 0 else 2**60 * drawn + self._next_token

    def _call(self, data: st.DataObject, url: str, **how: Any) -> int | None:
        connection = self._pick(data)
        request_id = self._draw_new_id(data)
        if not self.session.is_base:
            how["native"] = data.draw(st.booleans())
        if connection is None or not self._room(connection):
            return None
        self._say(connection, strategies.http_request(request_id, url, **how))
        return connection

    @rule(data=st.data())
    def fine(self, data: st.DataObject) -> None:
        """The upstream answers at once."""
        self._call(data, self._url("ok"), deadline_at_ms=data.draw(st.sampled_from((0, 0, 2**63))))

    @rule(data=st.data())
    def hangs(self, data: st.DataObject) -> None:
        """The upstream never answers; some have a limit of their own."""
        can_cancel = not self.session.is_base
        limits = (0, 0, 0, 30) if can_cancel else (30, 200)
        timeout_ms = data.draw(st.sampled_from(limits))
        # Timeouts open circuits, so they are for the origin that may have trouble.
        url = self._url("hang", port=TROUBLED if timeout_ms else STEADY)
        if self._call(data, url, timeout_ms=timeout_ms) is not None and not timeout_ms:
            self._do("arrived", 0, url.rsplit("/", 1)[1].encode())

    @rule(data=st.data(), deadline=st.sampled_from(strategies.DEADLINES_MS))
    def with_deadline(self, data: st.DataObject, deadline: int) -> None:
        """A deadline at an extreme."""
        self._call(data, self._url("ok"), deadline_at_ms=deadline)

    @rule(data=st.data(), path=st.sampled_from(("reset", "reset", "503")), often=st.integers(0, 5))
    def troubled(self, data: st.DataObject, path: str, often: int) -> None:
        """An origin that fails: circuits may open there, and only there."""
        if not often:
            self._call(data, self._url(path, port=TROUBLED))

    @precondition(lambda self: not self.session.is_base)
    @rule(data=st.data(), many=st.integers(20, 24), often=st.integers(0, 3))
    def noisy_tenant(self, data: st.DataObject, many: int, often: int) -> None:
        """One tenant asks for what fails until its circuit opens: nobody else's may.

        A call of its own that began before ends behind that; what it shows is of another time.
        """
        before, connection = self._pick(data), self._pick(data)
        if often or before is None or connection is None or not self._room(connection):
            return
        tenant = f"{NOISY}{self._world.salt}t{self._next_token}"
        late = self._shared("late", tenant)
        self._say(before, late)
        self._do("arrived", before, f"{self._world.salt}t{self._next_token}".encode())
        burst = [self._shared("503", tenant, method="POST") for _ in range(many)]
        self._do("send", connection, b"".join(map(strategies.frame_of, burst)))
        self._do("wait", connection)
        for whose in ("acme", tenant):
            self._say(connection, self._shared("ok", whose))
            self._do("wait", connection)
        self._do("wait", before)
        self._say(connection, self._shared("ok", tenant))

    def _shared(self, path: str, tenant: str, **how: Any) -> ExecuteRequest:
        """A call to the shared origin."""
        url = self._url(path, port=SHARED)
        return strategies.http_request(2**61 + self._next_token, url, tenant_id=tenant, **how)

    @precondition(lambda self: not self.session.is_base)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Of a call that is open, mostly."""
        connection = self._pick(data)
        choose = self._draw_id(data)
        if connection is not None:
            self._say(connection, Cancel(choose(connection)))

    @precondition(lambda self: not self.session.is_base)
    @rule(data=st.data())
    def health(self, data: st.DataObject) -> None:
        """How many calls are in flight?"""
        connection = self._pick(data)
        if connection is not None:
            self._say(connection, HealthCheck())


class _Streams(_Calls):
    """Streamed answers and bodies, under credit."""

    @rule(data=st.data(), size=st.sampled_from(_SIZES))
    def stream(self, data: st.DataObject, size: int) -> None:
        """A streamed answer, shorter and longer than its window."""
        self._call(data, self._url("stream", size=size), stream=True)

    @rule(data=st.data(), path=st.sampled_from(("ok", "hang")))
    def stream_other(self, data: st.DataObject, path: str) -> None:
        """A stream of little, or of nothing at all."""
        self._call(data, self._url(path), stream=True)

    @rule(data=st.data(), more=st.sampled_from((1, 1_000, 65_536, 200_000)))
    def credit(self, data: st.DataObject, more: int) -> None:
        """More of a stream, and of the connection."""
        connection = self._pick(data)
        choose = self._draw_id(data)
        if connection is not None:
            request_id = choose(connection) or 1
            self._say(connection, CreditUpdate(more, 0, request_id, connection_bytes=more))

    @rule(data=st.data())
    def stream_that_waits(self, data: st.DataObject) -> None:
        """Longer than its window; what it is granted then is enough for the rest."""
        url = self._url("stream", size=200_000)
        request_id = self._draw_new_id(data)
        connection = self._pick(data)
        if connection is None or not self._room(connection):
            return
        self._say(connection, strategies.http_request(request_id, url, stream=True))
        self._do("pause")
        self._say(connection, CreditUpdate(200_000, 0, request_id, connection_bytes=200_000))
        self._do("wait", connection)

    @rule(data=st.data())
    def upload(self, data: st.DataObject) -> None:
        """A body in pieces: in order, or not; whole, or broken off."""
        connection = self._pick(data)
        url = self._url("sum")
        request_id = self._draw_new_id(data)
        some = st.sampled_from((0, 1, 1_000, 20_000))
        sizes = data.draw(st.lists(some, min_size=1, max_size=3))
        wrong = data.draw(st.sampled_from((0, 0, 0, 1)))
        is_whole = data.draw(st.sampled_from((True, True, False)))
        if data.draw(st.integers(0, 15)) == 0:
            sizes = [2**20 + 1]  # more than can have been granted: the connection has to end
        elif data.draw(st.integers(0, 7)) == 0:
            sizes = [65_537]  # more than a stream has at first
        if connection is None or not self._room(connection):
            return
        request = strategies.http_request(request_id, url, body_follows=True)
        self._say(connection, request)
        for number, size in enumerate(sizes):
            is_last = is_whole and number == len(sizes) - 1
            chunk = RequestChunk(request_id, number + wrong, b"u" * size, is_last)
            self._say(connection, chunk)

    @rule(data=st.data())
    def hostile_credit(self, data: st.DataObject) -> None:
        """Negative, overflowing, of ids that are not there."""
        connection = self._pick(data)
        choose = self._draw_id(data)
        update = data.draw(strategies.credits_of(st.just(1)))
        if connection is not None:
            request_id = choose(connection) if update.request_id else 0
            self._say(connection, msgspec.structs.replace(update, request_id=request_id))


class _All(_Streams, _Wire):
    """Everything at once."""


PROFILES: Final[dict[str, type[Machine]]] = {
    "wire": _Wire,
    "http": _Calls,
    "stream": _Streams,
    "all": _All,
}


def machine(profile: str, session: Session) -> type[RuleBasedStateMachine]:
    """The machine of `profile` for one run."""
    base = PROFILES[profile]
    return type(f"{profile.title()}Machine", (base,), {"session": session})
