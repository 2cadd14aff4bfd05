"""What may happen in one step: something a caller does, something an upstream does, or time passes.

Each action draws what it needs from the one source of this part. An action that finds nothing to
act on lets a moment of time pass instead.
"""

import random
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import msgspec
import trio

from tools.simulate._callers import Caller, Callers
from tools.simulate._event_log import EventLog
from tools.simulate._moods import MOODS
from tools.simulate._records import CallRecord, Records
from tools.simulate._setup import Setup, Tenant, redraw
from tools.simulate._upstreams import Upstreams, path_of
from vastar_client.wire import ExecuteRequest, HealthCheck

__all__ = ["Actions", "Clock", "Wanted"]

_MAX_CONNECTIONS: Final = 6
_MAX_CALLS_PER_CONNECTION: Final = 60
"""Well below what makes the runtime stop reading: then a deadline may pass unread."""
_DEFAULT_TIMEOUT_S: Final = 30.0
_UNSAFE: Final = frozenset({"POST", "PATCH"})
_METHODS: Final = (
    ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"),
    (50, 25, 8, 5, 4, 8),
)
_LIMITS_S: Final = (None, -1.0, 0.05, 0.3, 1.0, 1.0, 3.0, 10.0, 60.0)
_TIMEOUTS_MS: Final = (0, 0, 0, 0, 0, 40, 700, 5000)
_KEYED_SHARE: Final = 0.3
_FOLLOWING_SHARE: Final = 0.9
_PLAIN_SHARE: Final = 0.3
"""Of the bodies are no LLM requests, where others are."""
_FRESH_SHARE: Final = 0.1
"""Of the calls open a connection although there are others."""


@attrs.define(eq=False)
class Clock:
    """The wall clock of the run: it runs with the virtual one, and may be stepped."""

    offset_s: float = 1_800_000_000.0

    def now_s(self) -> float:
        """Seconds since the Unix epoch."""
        return self.offset_s + trio.current_time()


@attrs.frozen
class Wanted:
    """A call to be made.

    Attributes:
        limit_s: its deadline from now; None where it gives none.
        timeout_ms: its own timeout, 0 where it gives none.
        is_keyed: it carries an Idempotency-Key.
        follows: it wants redirects followed.
        tokens: the most that its body may cost an LLM.
    """

    tenant: str
    workspace: str
    origin: str
    method: str = "GET"
    limit_s: float | None = 60.0
    timeout_ms: int = 0
    is_keyed: bool = False
    follows: bool = True
    body: object = None
    tokens: int = 0


@attrs.define(eq=False)
class Actions:
    """The steps of one run.

    Attributes:
        advance: lets so many seconds of virtual time pass.
        reload: has the runtime take up another configuration.
        epoch: how often that was done.
    """

    chance: random.Random
    setup: Setup
    callers: Callers
    upstreams: Upstreams
    records: Records
    log: EventLog
    clock: Clock
    advance: Callable[[float], Awaitable[None]]
    reload: Callable[[Setup], None]
    epoch: int = 0

    async def step(self) -> None:
        """Do one thing."""
        actions, weights = zip(*self._table(), strict=True)
        action: Callable[[], Awaitable[None]] = self.chance.choices(actions, weights)[0]
        await action()

    def _table(self) -> list[tuple[Callable[[], Awaitable[None]], int]]:
        return [
            (self._some_calls, 40),
            (self._time, 35),
            (self._flood, 3 if "crowded" in self.setup.features else 0),
            (self._mood, 8),
            (self._cancel, 5),
            (self._vanish, 2),
            (self._half_close, 1),
            (self._health, 1),
            (self._crash, 2),
            (self._wall_step, 1),
            (self._reload, 1),
        ]

    async def _time(self) -> None:
        dt_s = self.chance.choice((0.001, 0.01, 0.05, 0.2, 0.2, 1.0, 1.0, 4.0))
        await self.advance(dt_s * self.chance.uniform(0.5, 1.5))

    async def _some_calls(self) -> None:
        chance, tenants = self.chance, self.setup.tenants
        tenant = chance.choices(tenants, [tenant.share for tenant in tenants])[0]
        host = chance.choice(self.setup.hosts)
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            await self.call(self._draw_call(tenant, f"http://{host}"))

    async def _flood(self) -> None:
        """Everybody wants a lot at once, and has the patience to wait for it."""
        for tenant in self.setup.tenants:
            origin = f"http://{self.chance.choice(self.setup.hosts)}"
            for _ in range(self.chance.choice((4, 12))):
                await self.call(Wanted(tenant.name, tenant.workspaces[0], origin))

    def _draw_call(self, tenant: Tenant, origin: str) -> Wanted:
        chance = self.chance
        method = chance.choices(*_METHODS)[0]
        body, tokens = self._body(method)
        return Wanted(
            tenant.name,
            chance.choice(tenant.workspaces),
            origin,
            method,
            limit_s=chance.choice(_LIMITS_S),
            timeout_ms=chance.choice(_TIMEOUTS_MS),
            is_keyed=method in _UNSAFE and chance.random() < _KEYED_SHARE,
            follows=chance.random() < _FOLLOWING_SHARE,
            body=body,
            tokens=tokens,
        )

    async def call(self, wanted: Wanted) -> CallRecord | None:
        """Make a call on some connection; None where there is none to be had."""
        caller = self._connection()
        if caller is None:
            return None
        number = len(self.records.calls) + 1
        deadline_at_ms = 0
        if wanted.limit_s is not None:
            deadline_at_ms = int((self.clock.now_s() + wanted.limit_s) * 1000)
        payload: dict[str, object] = {
            "url": wanted.origin + path_of(number, 0),
            "method": wanted.method,
            "follow_redirects": wanted.follows,
            "timeout_ms": wanted.timeout_ms,
        }
        if wanted.body is not None:
            payload["body"] = wanted.body
        request = ExecuteRequest(
            caller.next_id,
            wanted.tenant,
            "http",
            "request",
            workspace_id=wanted.workspace or None,
            deadline_at_ms=deadline_at_ms,
            payload=msgspec.json.encode(payload),
            idempotency_key=f"key-{number}" if wanted.is_keyed else None,
        )
        caller.next_id += 1
        call = CallRecord(
            number,
            wanted.tenant,
            wanted.workspace,
            wanted.origin,
            wanted.method,
            wanted.is_keyed,
            wanted.follows,
            caller.number,
            request.request_id,
            trio.current_time(),
            self._expires_at_s(deadline_at_ms, wanted.timeout_ms),
            wanted.tokens,
            self.epoch,
        )
        self._log_call(call)
        await self.callers.call(caller, call, request)
        return call

    def _log_call(self, call: CallRecord) -> None:
        self.log.add(
            "call",
            call=call.number,
            connection=call.connection,
            tenant=call.tenant,
            workspace=call.workspace,
            what=f"{call.method} {call.origin}",
            keyed=call.is_keyed or None,
            within_s=call.expires_at_s - call.began_at_s,
        )

    def _expires_at_s(self, deadline_at_ms: int, timeout_ms: int) -> float:
        """By PROTOCOL.md: the earlier of both limits, the default where there is neither."""
        now_s = trio.current_time()
        limits_s = [timeout_ms / 1000] if timeout_ms else []
        if deadline_at_ms:
            limits_s.append(max(deadline_at_ms / 1000 - self.clock.now_s(), 0.0))
        return now_s + min(limits_s, default=_DEFAULT_TIMEOUT_S)

    def _body(self, method: str) -> tuple[object, int]:
        """A body, and the most tokens that it may cost an LLM."""
        chance = self.chance
        if method in {"GET", "HEAD", "DELETE"}:
            return None, 0
        if not self.setup.has_llm or chance.random() < _PLAIN_SHARE:
            size = chance.choice((0, 10, 10, 300_000))
            return "x" * size, 0
        prompt = "p" * chance.randrange(400)
        most = chance.choice((50, 150, 600))
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": most}
        return body, most + -(-len(prompt) // 4)

    def _connection(self) -> Caller | None:
        """One that takes calls; a new one now and then."""
        usable = [
            caller
            for caller in self.callers.open
            if not caller.is_half and len(caller.calls) < _MAX_CALLS_PER_CONNECTION
        ]
        has_room = len(self.callers.open) < _MAX_CONNECTIONS
        if has_room and (not usable or self.chance.random() < _FRESH_SHARE):
            return self.callers.connect()
        return self.chance.choice(usable) if usable else None

    async def _mood(self) -> None:
        host = self.upstreams.hosts[self.chance.choice(self.setup.hosts)]
        self.upstreams.turn(host, self.chance.choice(MOODS))

    async def _crash(self) -> None:
        self.upstreams.crash(self.upstreams.hosts[self.chance.choice(self.setup.hosts)])

    async def _cancel(self) -> None:
        live = [
            (caller, call)
            for caller in self.callers.open
            if not caller.is_half
            for call in caller.calls.values()
        ]
        if not live:
            return await self._time()
        for caller, call in self.chance.sample(live, min(len(live), self.chance.choice((1, 1, 4)))):
            await self.callers.cancel(caller, call)
        return None

    async def _half_close(self) -> None:
        whole = [caller for caller in self.callers.open if not caller.is_half]
        if not whole:
            return await self._time()
        return await self.callers.half_close(self.chance.choice(whole))

    async def _vanish(self) -> None:
        if not self.callers.open:
            return await self._time()
        self.callers.vanish(self.chance.choice(self.callers.open))
        return None

    async def _health(self) -> None:
        usable = [caller for caller in self.callers.open if not caller.is_half]
        if usable:
            await self.chance.choice(usable).send(HealthCheck())

    async def _reload(self) -> None:
        self.setup = redraw(self.chance, self.setup)
        self.epoch += 1
        self.log.add("reload", features=",".join(self.setup.features) or "none")
        self.reload(self.setup)

    async def _wall_step(self) -> None:
        """Somebody sets the clock: nothing that began before may notice."""
        step_s = self.chance.choice((-3600.0, -1.0, 0.5, 3600.0))
        self.clock.offset_s += step_s
        self.log.add("wall_step", seconds=step_s)
