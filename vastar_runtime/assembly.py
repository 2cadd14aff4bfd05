"""The runtime put together from a configuration, without listening anywhere.

Everything that reads a clock, a random source or the network is handed in here, once, so that a
test can run the whole runtime over memory streams in virtual time.
"""

import os
import random
import time
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from vastar_client.wire.limits import MAX_ANSWER_FRAME_BYTES
from vastar_runtime import audit, logs
from vastar_runtime.calls import Caller
from vastar_runtime.config import ConfigError, RuntimeConfig, compare, taken_up
from vastar_runtime.connectors.control import ControlConnector, account
from vastar_runtime.connectors.http import HttpConnector, HttpSettings
from vastar_runtime.credentials import (
    CredentialBook,
    CredentialedUpstreams,
    TokenFetcher,
)
from vastar_runtime.dispatch import Dispatcher
from vastar_runtime.further_connectors import FurtherConnectors
from vastar_runtime.identity import Doors, Guest, Identity, caller_context
from vastar_runtime.logs import get_logger
from vastar_runtime.metrics import Meters, Scraper, Snapshot
from vastar_runtime.pipeline import Connector, Machines, Pipeline, Surroundings, compose
from vastar_runtime.pipeline.guarding import EgressGuard
from vastar_runtime.pipeline.inspecting import describe, pools, snapshot
from vastar_runtime.pipeline.making import OWN, SharedMaker
from vastar_runtime.pipeline.policies import Gates
from vastar_runtime.pipeline.working import named_addresses
from vastar_runtime.policy_book import PolicyBook, egress_changed
from vastar_runtime.runtime_files import RuntimeFileError
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.session import Session, SessionLimits
from vastar_runtime.transport import (
    Channel,
    Network,
)
from vastar_runtime.unusable import audit_problem, refuse_unusable, transport_settings
from vastar_runtime.workers.team import Team

__all__ = ["Clocks", "Runtime"]

_LAST_WORDS_S: Final = 1.0
"""What a drain takes longer for, so that those who are cut read it."""

_log = get_logger(__name__)


@attrs.frozen
class Clocks:
    """The sources of time and chance that are not Trio's own.

    Attributes:
        wall_clock_ms: milliseconds since the Unix epoch.
        random_u64: a number from 0 to 2^64-1.
        random_ratio: uniform over [0, 1).
    """

    wall_clock_ms: Callable[[], float] = lambda: time.time() * 1000
    random_u64: Callable[[], int] = lambda: random.getrandbits(64)
    random_ratio: Callable[[], float] = random.random


class Runtime:
    """The daemon without its sockets: serves channels that somebody accepts.

    Args:
        config: the whole configuration.
        network: where upstreams are reached; the real network by default.
        clocks: the real ones by default.
        load: reads the configuration anew, for `reload`; the same again by default.
        team: the workers of which this is one, where there are several.
        sharing: makes the machines that its policies share with them.

    Must be made inside a Trio run; `run` has to run beside `serve`.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        network: Network | None = None,
        clocks: Clocks | None = None,
        load: Callable[[], RuntimeConfig] | None = None,
        team: Team | None = None,
        sharing: SharedMaker | None = None,
    ) -> None:
        clocks = clocks or Clocks()
        self.state = RuntimeState(started_at_s=trio.current_time())
        self.listeners: list[str] = []
        self.available_credits = config.server.max_in_flight_per_connection
        self.config = config
        self._load = load or (lambda: config)
        self._sharing = sharing
        self._sessions: set[Session] = set()
        self._connection_ids = 0
        machines, gates = Machines(PolicyBook(config), sharing or OWN), Gates()
        guard, self._transport = EgressGuard.before(
            transport_settings(config), network, machines, gates
        )
        self._further = FurtherConnectors(
            config, os.environ, named_addresses(guard, self._transport)
        )
        self._meters = Meters(("http", "vastar", *self._further.names))
        self._around = Surroundings(
            machines=machines,
            gates=gates,
            guard=guard,
            transport=self._transport,
            meters=self._meters,
            random_ratio=clocks.random_ratio,
            wall_clock_s=lambda: clocks.wall_clock_ms() / 1000,
        )
        self._scraper = Scraper(self._meters, self._seen)
        self._tokens = TokenFetcher(self._transport, clocks.random_ratio, self._around.wall_clock_s)
        self._upstreams = CredentialedUpstreams(
            compose(self._around), CredentialBook(config, os.environ, self._tokens)
        )
        self._http = HttpConnector(self._upstreams, _http_settings(config), clocks.random_u64)
        connectors: dict[str, Connector] = {
            "http": self._http,
            "vastar": ControlConnector(self.state, self, team),
            **self._further.connect(self._around),
        }
        self._dispatcher = Dispatcher(
            pipeline=Pipeline(connectors),
            meters=self._meters,
            wall_clock_ms=clocks.wall_clock_ms,
            default_timeout_s=config.http.default_timeout_s,
            stream_timeout_s=config.http.stream_timeout_s,
            max_answer_bytes=MAX_ANSWER_FRAME_BYTES,
        )
        self._limits = SessionLimits(
            max_in_flight=config.server.max_in_flight_per_connection,
            max_request_frame_bytes=config.server.max_request_frame_bytes,
            max_answer_frame_bytes=MAX_ANSWER_FRAME_BYTES,
            unfinished_frame_timeout_s=config.server.unfinished_frame_timeout_s,
            stalled_caller_timeout_s=config.server.stalled_caller_timeout_s,
            max_queued_answer_bytes=config.server.max_queued_answer_bytes,
            idle_timeout_s=config.server.idle_connection_timeout_s,
        )
        self._identity = Identity(config)
        self.doors = Doors.of(config.server)
        self.caller_tls = caller_context(config.tcp)

    # --- what the control connector tells and does -------------------------------------------

    def listening_on(self) -> list[str]:
        """The addresses of the listeners, as text."""
        return self.listeners

    def account(self, *, verbose: bool) -> dict[str, Any]:
        """What this process tells of itself, for the whole of which it is a part."""
        return account(self.state, self, verbose=verbose)

    def pools(self) -> list[dict[str, Any]]:
        """The connections to upstreams, by key."""
        return pools(self._around)

    def databases(self) -> list[dict[str, Any]]:
        """The connections to databases, by data source."""
        return self._further.told()

    def policies(self) -> dict[str, Any]:
        """What the policies are and hold."""
        return describe(self._around) | {"tenants": self._dispatcher.usage.rows()}

    async def metrics(self) -> bytes:
        """The text for Prometheus."""
        return await self._scraper.render()

    def longest_drain_s(self) -> float:
        """How long calls and streams in flight get at most when it leaves."""
        return max(self.config.server.drain_s, self.config.server.stream_drain_s)

    def reload(self) -> dict[str, Any]:
        """Take up the configuration anew, without dropping a call or what the policies know.

        Returns:
            `applied` and `needs_restart`: the keys that changed.

        Raises:
            ConfigError: it cannot be used; nothing has changed.
        """
        return self.take_up(self._load())

    def take_up(self, new: RuntimeConfig) -> dict[str, Any]:
        """The same with a configuration that was read already.

        Raises:
            ConfigError: it cannot be used; nothing has changed.
        """
        refuse_unusable(new, os.environ)
        running, changes = taken_up(self.config, new), compare(self.config, new)
        now_s, book = trio.current_time(), PolicyBook(new)
        credentials = CredentialBook(new, os.environ, self._tokens, self._upstreams.book)
        sources = self._further.prepare(new, anew=(moved := egress_changed(self.config, new)))
        self._reopen_audit(new)
        machines = self._around.machines
        machines.reconfigure(book, now_s)
        if moved:
            self._transport.renew()
        self._around.wake(
            machines.admission.change(
                now_s, book.of().admission, lambda key: book.of(*key).admission
            )
        )
        self._http.configure(_http_settings(new))
        self._upstreams.book = credentials
        self._further.configure(sources)
        self._dispatcher.default_timeout_s = new.http.default_timeout_s
        self._dispatcher.stream_timeout_s = new.http.stream_timeout_s
        if self.config.log != new.log:
            logs.reconfigure(new.log.level, new.log.format)
        self._identity.configure(new)
        self.doors.configure(new.server)
        self.caller_tls = caller_context(new.tcp)
        self.config = running
        told: dict[str, Any] = attrs.asdict(changes)
        _log.info("configuration reloaded", **told)
        audit.audit("reloaded", changed=changes.applied)  # whoever asked: a signal has no caller
        return told

    def _reopen_audit(self, new: RuntimeConfig) -> None:
        try:
            audit.configure(new.audit.path)
        except RuntimeFileError as error:
            raise ConfigError([audit_problem(error)]) from None

    def _seen(self) -> Snapshot:
        return snapshot(self._around, self.state, self._further.stats())

    # --- service ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do the housekeeping (idle upstream connections, idle policies), for ever."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._around.machines.run)
                nursery.start_soon(self._tokens.run)
                nursery.start_soon(self._identity.run)
                nursery.start_soon(self._further.run)
                if self._sharing is not None:
                    nursery.start_soon(self._sharing.run, self._around.wake)
                await self._transport.run()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await self._transport.aclose()

    async def serve(
        self, channel: Channel, *, caller: Caller | None = None, guest: Guest | None = None
    ) -> None:
        """Serve one caller until it is gone. Raises nothing but cancellation.

        Args:
            channel: the connection; it is closed at the end.
            caller: who is at the other end, but for the number of the connection.
            guest: on whom it is counted; None counts on nobody.
        """
        self._connection_ids += 1
        caller = attrs.evolve(caller or Caller(0), connection_id=self._connection_ids)
        session = Session(
            channel,
            caller,
            self._dispatcher,
            self._limits,
            self.state,
            self._identity.visa(caller),
            guest,
        )
        self._sessions.add(session)
        try:
            await session.run()
        except Exception:  # noqa: BLE001 - a bug in one session must not end the others
            _log.exception("internal error", connection=caller.connection_id)
        finally:
            self._sessions.discard(session)

    async def drain(self, drain_s: float, stream_drain_s: float | None = None) -> bool:
        """Take no new calls and wait for those in flight.

        Args:
            drain_s: how long to wait for calls; those that take longer are cut, and told.
            stream_drain_s: the same for streams; by default as for calls.

        Returns:
            Whether all of them ended and their answers were sent in their time.
        """
        self.state.draining = True
        stream_drain_s = drain_s if stream_drain_s is None else stream_drain_s
        began_s = trio.current_time()
        for session in tuple(self._sessions):
            session.go_away(drain_s, stream_drain_s)
        cut_calls = 0
        for limit_s, streams in sorted([(drain_s, False), (stream_drain_s, True)]):
            with trio.move_on_at(began_s + limit_s):
                await self.state.wait_idle()
            cut_calls += sum(session.cut_calls(streams=streams) for session in self._sessions)
        last_s = began_s + max(drain_s, stream_drain_s) + (_LAST_WORDS_S if cut_calls else 0)
        is_quiet = False
        with trio.move_on_at(last_s):
            await self.state.wait_idle()
            for session in tuple(self._sessions):
                await session.wait_quiet()
            is_quiet = True
        if cut_calls or not is_quiet:
            _log.warning("the drain time is over", cut_calls=cut_calls)
        return is_quiet and not cut_calls


def _http_settings(config: RuntimeConfig) -> HttpSettings:
    http = config.http
    return HttpSettings(
        max_redirects=http.max_redirects,
        accept_encoding=http.accept_encoding,
        header_timeout_s=http.stream_header_timeout_s,
        idle_timeout_s=http.stream_idle_timeout_s,
    )
