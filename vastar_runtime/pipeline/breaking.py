"""Circuit breaker and credential cooldown: leave alone whom asking again would not help.

Three machines are asked, the narrowest first: the credential's cooldown (429), the breaker of the
tenant at the origin (5xx, timeouts), the breaker of the origin (connections). A call counts once,
by the last of its attempts that showed anything (one that was refused or cancelled shows nothing):
so evidence is kept with the attempts until the hop has ended. What becomes of a probe is told at
once, since others wait for it.

The time that an attempt takes begins when it has its place in the connection pool; a slow one
speaks of the tenant's requests, not of the host.
"""

import trio

from vastar_runtime.logs import get_logger
from vastar_runtime.pipeline.attempt import NO_EVIDENCE, Attempt, Ended, Hop, Layer, Permits
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.breaker import Breaker, Evidence, Permit, State, Transition
from vastar_runtime.policy.classify import Meaning
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Refused

__all__ = ["BreakerLayer", "report_shown"]

_log = get_logger(__name__)


class BreakerLayer:
    """Refuses while a circuit is open, and tells the circuits what became of the others."""

    name = "circuit_breaker"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        self._inner = inner
        self._around = surroundings

    async def __call__(self, attempt: Attempt) -> Ended:
        """Ask, go on, and report."""
        passage = _Passage(attempt, self._around)
        refused = passage.ask(trio.current_time())
        if refused is not None:
            return Ended.by_refusal(refused)
        try:
            ended = await self._inner(attempt)
        except BaseException:
            passage.back_out()
            raise
        passage.report(ended)
        return ended


class _Passage:
    """The permits of one attempt."""

    __slots__ = ("_around", "_attempt", "_permits", "_round")

    def __init__(self, attempt: Attempt, surroundings: Surroundings) -> None:
        self._attempt = attempt
        self._around = surroundings
        self._round: int | None = None
        self._permits: list[tuple[Breaker, Permit]] = []

    def ask(self, now_s: float) -> Refused | None:
        """Take what is needed, or nothing where one refuses."""
        refused = self._ask_cooldown(now_s) or self._ask_breakers(now_s)
        if refused is not None:
            self.back_out()
        return refused

    def _ask_cooldown(self, now_s: float) -> Refused | None:
        hop = self._attempt.hop
        mode = hop.policies.cooldown.mode
        if mode is Mode.OFF:
            return None
        round_ = hop.of_credential.cooldown.admit(now_s)
        gate = self._around.gates.of("cooldown", mode)
        if isinstance(round_, Refused):
            return gate.apply(round_)
        self._round = round_
        gate.apply(None)
        return None

    def _ask_breakers(self, now_s: float) -> Refused | None:
        hop, around = self._attempt.hop, self._around
        mode = hop.policies.breaker.mode
        if mode is Mode.OFF:
            return None
        refusal: Refused | None = None
        for breaker in (hop.of_tenant.breaker, hop.of_origin.breaker):
            permit = breaker.admit(now_s)
            if isinstance(permit, Refused):
                refusal = permit
                if mode is Mode.ENFORCE:
                    break
                continue
            if permit.transition is not None:
                _tell(hop, around, breaker, permit.transition)
            self._permits.append((breaker, permit))
        return around.gates.of("circuit_breaker", mode).apply(refusal)

    def back_out(self) -> None:
        """Nothing was learned: refused, or cancelled on the way."""
        now_s = trio.current_time()
        hop = self._attempt.hop
        for breaker, permit in self._permits:
            _report(hop, self._around, Permits(breaker, permit, Evidence.NONE, 0.0), now_s)
        self._cool(NO_EVIDENCE, None, now_s)

    def report(self, ended: Ended) -> None:
        """Tell the cooldown and the probes now, and keep the rest until the hop has ended."""
        attempt = self._attempt
        hop, meaning, now_s = attempt.hop, ended.meaning, ended.at_s
        result = ended.result
        self._cool(meaning, None if result is None else result.retry_after_s, now_s)
        took_s = 0.0 if attempt.begun_at_s is None else now_s - attempt.begun_at_s
        of_origin = hop.of_origin.breaker
        kept = []
        for breaker, permit in self._permits:
            if breaker is of_origin:
                permits = Permits(breaker, permit, meaning.host, 0.0)
            else:
                permits = Permits(breaker, permit, meaning.tenant, took_s)
            if permit.is_probe:
                _report(hop, self._around, permits, now_s)
            else:
                kept.append(permits)
        attempt.permits = kept
        hop.shown.append(attempt)

    def _cool(self, meaning: Meaning, hint_s: float | None, now_s: float) -> None:
        if self._round is not None:
            self._attempt.hop.of_credential.cooldown.report(
                self._round, meaning, now_s, self._around.random_ratio(), hint_s
            )


def report_shown(hop: Hop, surroundings: Surroundings) -> None:
    """The hop has ended: the last attempt that showed anything counts, those before it do not."""
    now_s = trio.current_time()
    last = hop.shown[-1]
    for attempt in hop.shown:
        for permits in attempt.permits:
            told = permits if attempt is last else permits._replace(evidence=Evidence.NONE)
            _report(hop, surroundings, told, now_s)
    hop.shown.clear()


def _report(hop: Hop, surroundings: Surroundings, permits: Permits, now_s: float) -> None:
    transition = permits.breaker.report(
        permits.permit, permits.evidence, now_s, surroundings.random_ratio(), permits.took_s
    )
    if transition is not None:
        _tell(hop, surroundings, permits.breaker, transition)


def _tell(hop: Hop, surroundings: Surroundings, breaker: Breaker, transition: Transition) -> None:
    """Log and count a change of state."""
    scope = breaker.scope.value
    surroundings.meters.breaker_changed(scope, transition.after.value)
    whose = {} if breaker is hop.of_origin.breaker else {"tenant": hop.key.tenant}
    level = _log.warning if transition.after is State.OPEN else _log.info
    level(
        "circuit breaker",
        scope=scope,
        origin=hop.key.origin,
        before=transition.before.value,
        after=transition.after.value,
        why=transition.change.name.lower(),
        open_s=round(transition.open_s, 3),
        **whose,
    )
