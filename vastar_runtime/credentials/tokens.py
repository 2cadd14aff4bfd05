"""Fetching tokens: one question at a time for each, in a task that no caller can cancel.

A question belongs to everybody who waits for its answer. So it runs in the fetcher's own nursery:
a caller that goes away takes nothing with it, and one whose deadline is short leaves the token
behind for the next.
"""

import math
from collections.abc import Callable
from typing import Final

import trio

from vastar_runtime.audit import audit
from vastar_runtime.calls import Call
from vastar_runtime.config import OAuth2Config
from vastar_runtime.connectors.http.target import parse_target
from vastar_runtime.credentials.oauth2 import (
    MAX_ANSWER_BYTES,
    Denied,
    Granted,
    read_answer,
    token_request,
)
from vastar_runtime.credentials.secrets import SecretText
from vastar_runtime.credentials.token_state import TokenState
from vastar_runtime.logs import get_logger
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.pipeline.guarding import Forbidden
from vastar_runtime.policy.retry_after import parse as parse_retry_after
from vastar_runtime.transport import HttpTransport
from vastar_runtime.transport.errors import BodyTooLarge, TransportError
from vastar_runtime.transport.messages import Headers, header_values
from vastar_runtime.transport.progress import Progress

__all__ = ["TokenFetcher", "TokenSource"]

_WAITING: Final = "waiting for the token of its credential"

_log = get_logger(__name__)


class TokenFetcher:
    """What all tokens of a runtime are fetched with.

    Args:
        transport: the one that calls go through, with its guard and its pools.
        random_ratio: uniform over [0, 1).
        wall_clock_s: for dates in answers.
    """

    def __init__(
        self,
        transport: HttpTransport,
        random_ratio: Callable[[], float],
        wall_clock_s: Callable[[], float],
    ) -> None:
        self.transport = transport
        self.random_ratio = random_ratio
        self.wall_clock_s = wall_clock_s
        self.nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Be there for questions, for ever."""
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self.nursery = None


class TokenSource:
    """The token of one credential.

    Args:
        fetcher: shared by all.
        scope: (tenant, workspace), whose pool its questions go through.
        settings: as checked.
        client_secret: read anew for each question.
    """

    def __init__(
        self,
        fetcher: TokenFetcher,
        scope: tuple[str, str],
        settings: OAuth2Config,
        client_secret: SecretText,
    ) -> None:
        self.settings = settings
        self._fetcher = fetcher
        self._scope = scope
        self._secret = client_secret
        target = parse_target(settings.token_url or "")
        self._origin, self._target = target.origin, target.path_and_query
        self._state = TokenState()
        self._answered: trio.Event | None = None

    def __repr__(self) -> str:
        return f"TokenSource({self._origin})"

    async def token(self, call: Call) -> str | Failure:
        """A token that holds for some seconds more, or why there is none."""
        while True:
            now_s = trio.current_time()
            state = self._state
            if self._answered is None and state.wants_another(now_s):
                self._ask()
            token = state.token(now_s)
            if token is not None:
                return token
            refusal = state.refusal(now_s)
            if refusal is not None:
                return self._failure(call, *refusal)
            if self._answered is None:
                return Failure(FailureKind.DRAINING, f"{call.origin}: the runtime is going away")
            call.waiting_for = _WAITING
            await self._answered.wait()
            call.waiting_for = ""

    def rejected(self, token: str) -> None:
        """The upstream does not accept `token`."""
        if self._state.rejected(token, trio.current_time()):
            _log.warning("a token was refused by its upstream", **self._named())

    def _failure(self, call: Call, denied: Denied, rest_s: float) -> Failure:
        call.come_back_after(rest_s)
        return Failure(
            denied.kind,
            f"no credential for {call.origin}: no token of {self._origin}: {denied.words}",
            retry_after_ms=max(math.ceil(rest_s * 1000), 1),
        )

    def _ask(self) -> None:
        if self._fetcher.nursery is not None:
            self._answered = trio.Event()
            self._fetcher.nursery.start_soon(self._fetch, self._answered)

    async def _fetch(self, answered: trio.Event) -> None:
        asked_at_s = trio.current_time()
        answer: Granted | Denied = Denied(
            FailureKind.TIMEOUT, f"no answer within {self.settings.timeout_s:g} s"
        )
        try:
            with trio.move_on_after(self.settings.timeout_s):
                answer = await self._exchange(asked_at_s)
            self._take(asked_at_s, answer)
        finally:
            self._answered = None
            answered.set()

    def _take(self, asked_at_s: float, answer: Granted | Denied) -> None:
        now_s, ratio = trio.current_time(), self._fetcher.random_ratio()
        if isinstance(answer, Granted):
            self._state.granted(asked_at_s, answer, ratio)
            if self._state.token(now_s) is not None:
                _log.debug("a token was granted", lifetime_s=answer.lifetime_s, **self._named())
                return
            answer = Denied(FailureKind.UPSTREAM, "its token had expired when it came")
        rest_s = self._state.denied(now_s, answer, ratio)
        _log.warning(
            "no token could be had", reason=answer.words, rest_s=round(rest_s, 3), **self._named()
        )

    async def _exchange(self, now_s: float) -> Granted | Denied:
        request = token_request(self.settings, self._origin, self._target, self._secret.get(now_s))
        try:
            async with await self._fetcher.transport.request(
                self._scope, request, Progress()
            ) as response:
                body = await response.read_all(MAX_ANSWER_BYTES)
                return read_answer(response.status, body, self._asked_rest(response.headers))
        except TransportError as error:
            return Denied(self._kind_of(error), str(error))
        except BodyTooLarge:
            return Denied(FailureKind.UPSTREAM, "its answer is too long")

    def _kind_of(self, error: TransportError) -> FailureKind:
        if isinstance(error.__cause__, Forbidden):
            tenant, workspace = self._scope
            audit(
                "egress_refused",
                tenant=tenant,
                workspace=workspace or None,
                origin=str(self._origin),
                rule=error.__cause__.rule,
                reason="it is where a token of a credential is configured to be had",
            )
            return FailureKind.UPSTREAM_PERMANENT
        return FailureKind.TIMEOUT if error.timed_out else FailureKind.UPSTREAM

    def _asked_rest(self, headers: Headers) -> float | None:
        def value(name: bytes) -> str | None:
            found = header_values(headers, name)
            return found[0].decode("latin-1") if found else None

        return parse_retry_after(
            value(b"retry-after"), value(b"retry-after-ms"), self._fetcher.wall_clock_s()
        )

    def _named(self) -> dict[str, str]:
        tenant, workspace = self._scope
        return {"tenant": tenant, "workspace": workspace, "origin": str(self._origin)}
