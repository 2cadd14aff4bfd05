"""Bugs to plant in the runtime: each is the smallest change that breaks one promise.

A simulation that never finds anything proves nothing. So each invariant has at least one bug here
that it is there to find, and a test holds the two lists against each other.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec
import pytest
import trio

from vastar_client.wire import ExecuteResponse
from vastar_runtime import dispatch
from vastar_runtime.calls import Call
from vastar_runtime.connectors.http.answer import HttpAnswer
from vastar_runtime.connectors.http.connector import HttpConnector
from vastar_runtime.metrics import Meters
from vastar_runtime.outbox import Outbox
from vastar_runtime.pipeline import Pipeline, Surroundings, connecting, retrying
from vastar_runtime.pipeline.connecting import AttemptTimeoutLayer
from vastar_runtime.policy import classify, cooldown, retry
from vastar_runtime.policy.breaker import Breaker, Evidence, Permit, State
from vastar_runtime.policy.fair_queue import FairQueue
from vastar_runtime.policy.modes import Gate, Mode
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter
from vastar_runtime.policy.retry_quota import RetryQuota
from vastar_runtime.policy.token_limit import TokenLimiter
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.session import Session
from vastar_runtime.transport.http1 import Http1Connection
from vastar_runtime.transport.pool import Pool
from vastar_runtime.transport.progress import Progress
from vastar_runtime.transport.response import UpstreamResponse

__all__ = ["BUGS", "Bug"]

Plant = Callable[[pytest.MonkeyPatch], None]


@attrs.frozen
class Bug:
    """A bug, and the invariants of which one has to find it."""

    plant: Plant
    found_by: tuple[str, ...]


def _around(owner: type, name: str, make: Callable[[Any], Any]) -> Plant:
    """Replace a method by what `make` makes of it."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, make(getattr(owner, name)))

    return plant


def _breaker_keeps_permits(report: Any) -> Any:
    def patched(self: Breaker, permit: Permit, evidence: Evidence, *rest: Any) -> Any:
        if evidence is Evidence.NONE:
            return None  # "nothing was learned", and nothing is given back either
        return report(self, permit, evidence, *rest)

    return patched


def _open_circuits_let_through(admit: Any) -> Any:
    def patched(self: Breaker, now_s: float) -> Any:
        if self.state is State.OPEN:
            self.in_flight += 1
            return Permit(-1)
        return admit(self, now_s)

    return patched


def _everybody_probes(admit: Any) -> Any:
    def patched(self: Breaker, now_s: float) -> Any:
        verdict = admit(self, now_s)
        if isinstance(verdict, Refused) and self.state is State.HALF_OPEN:
            self.in_flight += 1
            return Permit(self.generation, 10**9)
        return verdict

    return patched


def _probes_never_close(judge: Any) -> Any:
    def patched(self: Breaker, lease: int, evidence: Evidence, *rest: Any) -> Any:
        good = {Evidence.SUCCESS, Evidence.ANSWERED}
        return judge(self, lease, Evidence.FAILURE if evidence in good else evidence, *rest)

    return patched


def _decide_with(**fields: Any) -> Plant:
    """Retry decides by other facts than those that hold."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = retry.decide
        patch.setattr(
            retrying.retry, "decide", lambda *args, **given: real(*args, **{**given, **fields})
        )

    return plant


def _hints_are_not_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(connecting, "_retry_after_s", lambda *_: None)


def _hints_are_used_again(patch: pytest.MonkeyPatch) -> None:
    """As in litellm #20722: the hint of one answer holds for the next ones, too."""
    real = connecting._retry_after_s
    last: list[float | None] = [None]

    def patched(*args: Any) -> float | None:
        asked_s = real(*args)
        last[0] = asked_s if asked_s is not None else last[0]
        return last[0]

    patch.setattr(connecting, "_retry_after_s", patched)


def _unsafe_methods_are_repeated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(classify, "IDEMPOTENT_METHODS", classify.IDEMPOTENT_METHODS | {"POST", "PATCH"})


def _limits_charge_nothing(decide: Any) -> Any:
    """Checked, and charged only some time later."""

    def patched(self: RateLimiter, now_s: float, cost: int = 1, *rest: Any) -> Any:
        verdict = decide(self, now_s, cost, *rest)
        if isinstance(verdict, Allowed):
            self.refund(now_s, verdict)
        return verdict

    return patched


def _tokens_cost_nothing(_: Any) -> Any:
    def patched(self: TokenLimiter, now_s: float, permit: Allowed, *rest: Any, **more: Any) -> Any:
        self.refund(now_s, permit)

    return patched


def _claims_are_put_off(patch: pytest.MonkeyPatch) -> None:
    """The line of a limiter turns round and round at one instant."""

    async def wait(self: Any, waiting: Any) -> Any:
        del self, waiting
        while True:
            await trio.lowlevel.checkpoint()

    patch.setattr("vastar_runtime.pipeline.pacing.Pacer.wait", wait)


def _reserve_for_nothing(reserve: Any) -> Any:
    def patched(self: RetryQuota, now_s: float, **how: Any) -> Any:
        tokens, cost = self.tokens, reserve(self, now_s, **how)
        self.tokens = tokens
        return cost

    return patched


def _tenants_share_connections(bucket: Any) -> Any:
    def patched(self: Any, key: Any) -> Any:
        _, origin, route = key
        return bucket(self, (("shared", ""), origin, route))

    return patched


def _the_first_tenant_first(push: Any) -> Any:
    def patched(self: Any, path: Any, item: Any, **how: Any) -> Any:
        return push(self, path, item, **{**how, "tenant_weight": 50 if path[0] == "acme" else 1})

    return patched


def _answers_come_twice(put: Any) -> Any:
    async def patched(self: Outbox, message: Any) -> None:
        await put(self, message)
        if message.request_id % 7 == 0:
            await put(self, message)

    return patched


def _calls_hear_no_cancel(_: Any) -> Any:
    return lambda self, why: None


def _calls_have_no_deadline(init: Any) -> Any:
    def patched(self: Call) -> None:
        init(self)
        self.scope.deadline = math.inf

    return patched


def _answers_go_astray(reply: Any) -> Any:
    kept: list[Any] = []

    def patched(self: HttpAnswer, payload_format: Any) -> Any:
        kept.append(reply(self, payload_format))
        return kept[-2] if len(kept) % 5 == 0 else kept[-1]

    return patched


def _nothing_was_sent(_: Any) -> Any:
    return property(lambda self: dispatch.Disposition.NOT_SENT)


def _answer_with(**fields: Any) -> Plant:
    """Answers say something else."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = dispatch._answer

        def patched(*args: Any) -> ExecuteResponse:
            return msgspec.structs.replace(real(*args), **fields)

        patch.setattr(dispatch, "_answer", patched)

    return plant


def _refusals_say_little(_: Any) -> Any:
    def patched(self: Call, refused: Refused) -> None:
        self.refused_by = refused.policy
        self.retry_after_ms = 0

    return patched


def _observers_refuse(apply: Any) -> Any:
    def patched(self: Gate, verdict: Any) -> Any:
        apply(self, verdict)
        return verdict if self.mode is not Mode.OFF else None

    return patched


def _timeouts_are_not_counted(call_ended: Any) -> Any:
    def patched(self: Meters, connector: str, error_class: str, *rest: str, **more: Any) -> None:
        if error_class != "TIMEOUT":
            call_ended(self, connector, error_class, *rest, **more)

    return patched


def _attempts_take_their_time(_: Any) -> Any:
    async def patched(self: Any, attempt: Any) -> Any:
        return await self._inner(attempt)

    return patched


def _wakes_are_lost(wake: Any) -> Any:
    def patched(self: Surroundings, woken: Any) -> None:
        for queued in [*woken][:-1]:
            wake(self, [queued])

    return patched


def _connections_stay(_: Any) -> Any:
    return lambda self: None


def _work_goes_on(run: Any) -> Any:
    """Something of a call runs on in the background."""

    async def patched(self: Pipeline, call: Call) -> Any:
        outcome = await run(self, call)
        connector = self._connectors["http"]

        async def again() -> None:
            await trio.sleep(0.1)
            call.scope = trio.CancelScope()
            await connector.execute(call)

        trio.lowlevel.spawn_system_task(again)
        return outcome

    return patched


def _a_bug(_: Any) -> Any:
    def patched(self: HttpConnector, call: Call) -> Any:
        raise LookupError("something went wrong")

    return patched


def _idle_stays(_: Any) -> Any:
    return lambda self, now_s, **how: None


def _drains_refuse_nobody(why_not: Any) -> Any:
    def patched(self: Session, request: Any) -> Any:
        failure = why_not(self, request)
        return None if failure is not None and failure.refused_by == "drain:runtime" else failure

    return patched


def _never_idle(_: Any) -> Any:
    async def patched(self: RuntimeState) -> None:
        await trio.sleep_forever()

    return patched


def _rests_are_short(_: Any) -> Any:
    return lambda self, random_ratio, retry_after_s: 0.001


BUGS: Mapping[str, Bug] = {
    "a breaker's permit is not given back": Bug(
        _around(Breaker, "report", _breaker_keeps_permits), ("nothing_is_held_for_nobody",)
    ),
    "an open circuit lets through": Bug(
        _around(Breaker, "admit", _open_circuits_let_through), ("circuits_hold",)
    ),
    "everybody is a probe": Bug(_around(Breaker, "admit", _everybody_probes), ("circuits_hold",)),
    "a circuit never closes": Bug(
        _around(Breaker, "_judge_probe", _probes_never_close), ("recovers",)
    ),
    "retries ignore the deadline": Bug(
        _decide_with(expires_at_s=math.inf), ("a_backoff_that_cannot_fit_is_not_begun",)
    ),
    "retries have no end": Bug(
        _decide_with(attempts_made=1), ("no_more_attempts_than_configured",)
    ),
    "a hint is not read": Bug(
        _hints_are_not_read, ("a_hint_is_a_floor", "a_resting_credential_is_left_alone")
    ),
    "a hint is used again": Bug(_hints_are_used_again, ("backoff_is_of_its_own_answer",)),
    "a credential does not rest": Bug(
        _around(cooldown.Cooldown, "_rest_s", _rests_are_short),
        ("a_resting_credential_is_left_alone",),
    ),
    "what may not be repeated is": Bug(
        _unsafe_methods_are_repeated, ("what_may_not_be_repeated_is_not",)
    ),
    "a limit checks and does not charge": Bug(
        _around(RateLimiter, "decide", _limits_charge_nothing),
        ("calls_keep_to_their_rates", "tokens_keep_to_their_rates"),
    ),
    "tokens cost nothing": Bug(
        _around(TokenLimiter, "settle_answer", _tokens_cost_nothing),
        ("tokens_keep_to_their_rates",),
    ),
    "a line never rests": Bug(_claims_are_put_off, ("comes_to_rest",)),
    "retries are free": Bug(
        _around(RetryQuota, "reserve", _reserve_for_nothing), ("retries_stay_within_the_quota",)
    ),
    "tenants share connections": Bug(
        _around(Pool, "bucket", _tenants_share_connections), ("tenants_are_apart",)
    ),
    "one tenant goes first": Bug(
        _around(FairQueue, "push", _the_first_tenant_first), ("tenants_take_turns",)
    ),
    "some answers come twice": Bug(
        _around(Outbox, "put", _answers_come_twice), ("one_final_answer",)
    ),
    "a cancel is not heard": Bug(
        _around(Call, "cancel", _calls_hear_no_cancel), ("a_taken_back_call_ends_at_once",)
    ),
    "calls have no deadline": Bug(
        _around(Call, "__attrs_post_init__", _calls_have_no_deadline),
        ("no_call_outlives_its_deadline",),
    ),
    "answers go astray": Bug(
        _around(HttpAnswer, "reply", _answers_go_astray), ("a_reply_is_of_its_own_call",)
    ),
    "nothing was ever sent": Bug(
        _around(Progress, "disposition", _nothing_was_sent), ("the_disposition_is_true",)
    ),
    "attempts are miscounted": Bug(_answer_with(attempts=77), ("attempts_are_told",)),
    "times are made up": Bug(_answer_with(duration_us=1), ("times_add_up",)),
    "refusals say little": Bug(
        _around(Call, "refused", _refusals_say_little), ("refusals_say_who_and_when",)
    ),
    "observers refuse": Bug(
        _around(Gate, "apply", _observers_refuse), ("only_what_is_enforced_refuses",)
    ),
    "timeouts are not counted": Bug(
        _around(Meters, "call_ended", _timeouts_are_not_counted), ("the_metrics_are_true",)
    ),
    "attempts take their time": Bug(
        _around(AttemptTimeoutLayer, "__call__", _attempts_take_their_time),
        ("no_attempt_outlives_its_limit",),
    ),
    "a wake-up is lost": Bug(
        _around(Surroundings, "wake", _wakes_are_lost), ("nobody_waits_whose_turn_has_come",)
    ),
    "an upstream is not left": Bug(
        _around(Http1Connection, "abort", _connections_stay),
        ("the_upstream_is_left_with_its_call",),
    ),
    "a response is not left": Bug(
        _around(UpstreamResponse, "abort", _connections_stay),
        ("the_upstream_is_left_with_its_call", "nothing_is_held_for_nobody"),
    ),
    "work goes on behind an answer": Bug(
        _around(Pipeline, "run", _work_goes_on), ("no_attempt_after_the_end",)
    ),
    "something raises": Bug(_around(HttpConnector, "_prepare", _a_bug), ("no_bug_shows",)),
    "idle connections stay": Bug(_around(Pool, "sweep", _idle_stays), ("nothing_is_left",)),
    "a drain refuses nobody": Bug(
        _around(Session, "_why_not", _drains_refuse_nobody), ("draining_begins_nothing",)
    ),
    "a drain never ends": Bug(_around(RuntimeState, "wait_idle", _never_idle), ("drains",)),
}
"""By what is wrong with them."""
