"""Circuit breaker and credential cooldown: leave alone whom asking again would not help.

Three machines are asked, the narrowest first: the credential's cooldown (429), the breaker of the
tenant at the origin (5xx, timeouts), the breaker of the origin (connections). A call counts once,
by its last attempt: so evidence is held on the hop. The next attempt that ends here replaces it,
the end of the hop counts it. What becomes of a probe is told at once, since others wait for it.
"""

from typing import Final

import attrs
import trio

from vastar_runtime.logs import get_logger
from vastar_runtime.pipeline.attempt import NO_EVIDENCE, Attempt, Ended, Held, Hop, Layer
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.breaker import Breaker, Evidence, Permit, State, Transition
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Refused

__all__ = ["BreakerLayer", "count_held", "discount_held"]

_log = get_logger(__name__)

_COOLDOWN: Final = "cooldown"
_BREAKER: Final = "circuit_breaker"


class BreakerLayer:
    """Refuses while a circuit is open, and tells the circuits what became of the others."""

    name = "circuit_breaker"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        self._inner = inner
        self._around = surroundings

    async def __call__(self, attempt: Attempt) -> Ended:
        """Ask, go on, and report."""
        hop = attempt.hop
        now_s = trio.current_time()
        passage = _Passage(hop, self._around)
        refused = passage.ask(now_s)
        if refused is not None:
            return Ended.by_refusal(refused)
        try:
            ended = await self._inner(attempt)
        except BaseException:
            passage.back_out()
            raise
        passage.report(ended, now_s)
        return ended


class _Passage:
    """The permits of one attempt."""

    __slots__ = ("_around", "_hop", "_permits", "_round")

    def __init__(self, hop: Hop, surroundings: Surroundings) -> None:
        self._hop = hop
        self._around = surroundings
        self._round: int | None = None
        self._permits: list[tuple[Breaker, Permit]] = []

    def ask(self, now_s: float) -> Refused | None:
        """Take what is needed, or nothing where one refuses."""
        hop, gates = self._hop, self._around.gates
        mode = hop.policies.cooldown.mode
        if mode is not Mode.OFF:
            round_ = hop.of_credential.cooldown.admit(now_s)
            gate = gates.of(_COOLDOWN, mode)
            if isinstance(round_, Refused):
                if gate.apply(round_) is not None:
                    return round_
            else:
                gate.apply(None)
                self._round = round_
        mode = hop.policies.breaker.mode
        if mode is Mode.OFF:
            return None
        gate = gates.of(_BREAKER, mode)
        is_fine = True
        for breaker in (hop.of_tenant.breaker, hop.of_origin.breaker):
            permit = breaker.admit(now_s)
            if isinstance(permit, Refused):
                if gate.apply(permit) is not None:
                    self.back_out()
                    return permit
                is_fine = False
                continue
            if permit.transition is not None:
                _tell(hop, self._around, breaker, permit.transition)
            self._permits.append((breaker, permit))
        if is_fine:
            gate.apply(None)
        return None

    def back_out(self) -> None:
        """Nothing was learned: refused further on, or cancelled."""
        now_s = trio.current_time()
        for breaker, permit in self._permits:
            _report(self._hop, self._around, Held(breaker, permit, Evidence.NONE, 0.0), now_s)
        self._cool(_NOTHING, now_s)

    def report(self, ended: Ended, started_at_s: float) -> None:
        """Tell the cooldown and the probes now, and hold the rest."""
        now_s = trio.current_time()
        self._cool(ended, now_s)
        hop, around, meaning = self._hop, self._around, ended.meaning
        if hop.held:
            discount_held(hop, around)
        of_origin = hop.of_origin.breaker
        for breaker, permit in self._permits:
            evidence = meaning.host if breaker is of_origin else meaning.tenant
            held = Held(breaker, permit, evidence, now_s - started_at_s)
            if permit.is_probe:
                _report(hop, around, held, now_s)
            else:
                hop.held.append(held)

    def _cool(self, ended: Ended, now_s: float) -> None:
        if self._round is None:
            return
        hint_s = None if ended.result is None else ended.result.retry_after_s
        self._hop.of_credential.cooldown.report(
            self._round, ended.meaning, now_s, self._around.random_ratio(), hint_s
        )


_NOTHING: Final = Ended(NO_EVIDENCE)


def count_held(hop: Hop, surroundings: Surroundings) -> None:
    """The hop has ended: what its last attempt showed counts."""
    held, hop.held = hop.held, []
    now_s = trio.current_time()
    for each in held:
        _report(hop, surroundings, each, now_s)


def discount_held(hop: Hop, surroundings: Surroundings) -> None:
    """Another attempt was made: what the one before it showed does not count."""
    held, hop.held = hop.held, []
    now_s = trio.current_time()
    for each in held:
        _report(hop, surroundings, attrs.evolve(each, evidence=Evidence.NONE), now_s)


def _report(hop: Hop, surroundings: Surroundings, held: Held, now_s: float) -> None:
    transition = held.breaker.report(
        held.permit, held.evidence, now_s, surroundings.random_ratio(), held.took_s
    )
    if transition is not None:
        _tell(hop, surroundings, held.breaker, transition)


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
