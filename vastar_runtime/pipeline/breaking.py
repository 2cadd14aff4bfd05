"""Circuit breaker and credential cooldown: leave alone whom asking again would not help.

Three machines are asked, the narrowest first: the credential's cooldown (429), the breaker of the
tenant at the origin (5xx, timeouts), the breaker of the origin (connections). A call counts once,
by the last of its attempts that showed anything (one that was refused or cancelled shows nothing):
so evidence is kept with the attempts until the hop has ended. What becomes of a probe is told at
once, since others wait for it.

The time that an attempt takes begins when it has its place in the connection pool; a slow one
speaks of the tenant's requests, not of the host.
"""

from typing import Final

import trio

from vastar_runtime.logs import get_logger
from vastar_runtime.pipeline.attempt import NO_EVIDENCE, Attempt, Ended, Hop, Layer
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.breaker import Breaker, Evidence, Permit, State, Transition
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Refused

__all__ = ["BreakerLayer", "report_shown"]

_log = get_logger(__name__)
_OFF: Final = Mode.OFF


class BreakerLayer:
    """Refuses while a circuit is open, and tells the circuits what became of the others."""

    name = "circuit_breaker"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        self._inner = inner
        self._around = surroundings

    async def __call__(self, attempt: Attempt) -> Ended:
        """Ask, go on, and report."""
        policies = attempt.hop.policies
        refused = None
        if policies.cooldown.mode is not _OFF:
            refused = self._ask_cooldown(attempt, policies.cooldown.mode)
        if refused is None and policies.breaker.mode is not _OFF:
            refused = self._ask_breakers(attempt, policies.breaker.mode)
        if refused is not None:
            self._back_out(attempt)
            return Ended.by_refusal(refused)
        try:
            ended = await self._inner(attempt)
        except BaseException:
            self._back_out(attempt)
            raise
        if ended.refused is not None:  # further in: nothing was shown
            self._back_out(attempt)
        else:
            self._report(attempt, ended)
        return ended

    def _ask_cooldown(self, attempt: Attempt, mode: Mode) -> Refused | None:
        round_ = attempt.hop.of_credential.cooldown.admit(attempt.at_s)
        gate = self._around.gates.of("cooldown", mode)
        if isinstance(round_, Refused):
            return gate.apply(round_)
        attempt.cooldown_round = round_
        gate.apply(None)
        return None

    def _ask_breakers(self, attempt: Attempt, mode: Mode) -> Refused | None:
        hop, around = attempt.hop, self._around
        refusal: Refused | None = None
        for breaker in (hop.of_tenant.breaker, hop.of_origin.breaker):
            permit = breaker.admit(attempt.at_s)
            if isinstance(permit, Refused):
                refusal = permit
                if mode is Mode.ENFORCE:
                    break
                continue
            if permit.lease:
                attempt.has_probe = True
                if permit.transition is not None:
                    _tell(hop, around, breaker, permit.transition)
            attempt.permits.append((breaker, permit))
        return around.gates.of(self.name, mode).apply(refusal)

    def _back_out(self, attempt: Attempt) -> None:
        """Nothing was learned: refused, or cancelled on the way. All permits come back."""
        now_s = trio.current_time()
        permits, attempt.permits = attempt.permits, []
        for held in permits:
            _report(attempt.hop, self._around, held, Evidence.NONE, now_s)
        if attempt.cooldown_round is not None:
            attempt.hop.of_credential.cooldown.report(
                attempt.cooldown_round, NO_EVIDENCE, now_s, self._around.random_ratio(), None
            )

    def _report(self, attempt: Attempt, ended: Ended) -> None:
        """Tell the cooldown and the probes now, and keep the rest until the hop has ended."""
        hop, around, now_s = attempt.hop, self._around, ended.at_s
        attempt.meaning = meaning = ended.meaning
        if attempt.begun_at_s is not None:
            attempt.took_s = now_s - attempt.begun_at_s
        if attempt.cooldown_round is not None:
            hint_s = None if ended.result is None else ended.result.retry_after_s
            hop.of_credential.cooldown.report(
                attempt.cooldown_round, meaning, now_s, around.random_ratio(), hint_s
            )
        if attempt.has_probe:
            self._report_probes(attempt, now_s)
        hop.shown.append(attempt)

    def _report_probes(self, attempt: Attempt, now_s: float) -> None:
        hop = attempt.hop
        for held in tuple(attempt.permits):
            if held[1].is_probe:
                attempt.permits.remove(held)
                evidence, took_s = _evidence(hop, held[0], attempt)
                _report(hop, self._around, held, evidence, now_s, took_s=took_s)


def report_shown(hop: Hop, surroundings: Surroundings, now_s: float) -> None:
    """The hop has ended: the last attempt that showed anything counts, those before it do not."""
    last = hop.shown[-1]
    for attempt in hop.shown:
        for held in attempt.permits:
            evidence, took_s = Evidence.NONE, 0.0
            if attempt is last:
                evidence, took_s = _evidence(hop, held[0], attempt)
            _report(hop, surroundings, held, evidence, now_s, took_s=took_s)
    hop.shown.clear()


def _evidence(hop: Hop, breaker: Breaker, attempt: Attempt) -> tuple[Evidence, float]:
    """What an attempt showed to a breaker, and how long it took as far as that is its concern."""
    if breaker is hop.of_origin.breaker:
        return attempt.meaning.host, 0.0
    return attempt.meaning.tenant, attempt.took_s


def _report(
    hop: Hop,
    surroundings: Surroundings,
    held: tuple[Breaker, Permit],
    evidence: Evidence,
    now_s: float,
    *,
    took_s: float = 0.0,
) -> None:
    breaker, permit = held
    transition = breaker.report(permit, evidence, now_s, surroundings.random_ratio(), took_s)
    if transition is not None:
        _tell(hop, surroundings, breaker, transition)


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
