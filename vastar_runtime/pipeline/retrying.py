"""Retry: asks again where that may help, and waits in between.

The only loop over attempts. It sees how an attempt ended, has `policy.retry` decide, keeps the
answer that it is about to replace, and sleeps. An attempt that our own policies do not let out ends
the loop with what the attempt before it brought: an answer of the upstream, even a 503, tells more
than our refusal to ask again.
"""

from typing import Final

import trio

from vastar_runtime.pipeline.attempt import NO_EVIDENCE, Attempt, Ended, Hop, Layer
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy import retry
from vastar_runtime.policy.classify import Retry
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.retry import Reason, RetryAt
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.transport.messages import rewind

__all__ = ["RetryLayer"]

_KEPT_BYTES: Final = 256 * 1024
_KEEP_S: Final = 0.02
"""An error's body that is longer, or takes so much longer than the backoff, is not worth holding up
its retry; most of it came with the head."""


class RetryLayer:
    """Makes up to so many attempts of one."""

    name = "retry"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        self._inner = inner
        self._around = surroundings

    async def __call__(self, attempt: Attempt) -> Ended:
        """The end of the last attempt, or of the last one that went out."""
        hop = attempt.hop
        settings = hop.policies.retry
        ended = await self._inner(attempt)
        if ended.meaning.retry is Retry.NEVER:
            if ended.meaning.is_clean:
                hop.of_tenant.quota.earn(ended.at_s)
            return ended
        gate = self._around.gates.of("retry", settings.mode)
        while (planned := self._plan(hop, attempt, ended)) is not None:
            if not gate.acts():
                retry.settle(hop.of_tenant.quota, planned, None, trio.current_time())
                return ended
            progress = hop.call.progress
            following = await self._again(hop, attempt, ended, planned)
            if following.refused is not None and _tells_more(ended):
                hop.call.refused(following.refused)
                hop.call.progress = progress
                return ended
            if ended.response is not None:
                ended.response.abort()
            attempt = Attempt(hop, attempt.number + 1, hop.call.progress, following.at_s)
            ended = following
        return ended

    def _plan(self, hop: Hop, attempt: Attempt, ended: Ended) -> RetryAt | None:
        """When to try again; None where not."""
        policies, around = hop.policies, self._around
        if ended.result is None:
            return None
        if not rewind(hop.request.body):
            # More of it has gone by than was kept: it can be sent once only.
            around.meters.gave_up(Reason.NOT_RETRYABLE.value)
            return None
        now_s, rest_s = trio.current_time(), 0.0
        if policies.cooldown.mode is Mode.ENFORCE:
            rest_s = hop.of_credential.cooldown.rest_s(now_s)
        verdict = retry.decide(
            policies.retry,
            ended.result,
            ended.meaning,
            hop.of_tenant.quota,
            around.gates.of("retry_quota", policies.retry_quota.mode),
            now_s=now_s,
            attempts_made=attempt.number,
            expires_at_s=hop.call.deadline.expires_at_s,
            is_committed=False,  # the caller sees nothing before this layer has returned
            random_ratio=around.random_ratio(),
            rest_s=rest_s,
        )
        if isinstance(verdict, RetryAt):
            around.meters.retried(ended.meaning.retry.name.lower())
            return verdict
        around.meters.gave_up(verdict.reason.value)
        if policies.retry.mode is not Mode.ENFORCE:
            return None  # it changed nothing, so there is nothing to tell
        if verdict.reason is Reason.QUOTA_SPENT:
            hop.call.refused(
                Refused("retry_quota", Scope.TENANT, verdict.retry_after_s, "retries are used up")
            )
        return None

    async def _again(self, hop: Hop, attempt: Attempt, ended: Ended, planned: RetryAt) -> Ended:
        """Wait, and make the next attempt; the reservation of `planned` is settled in any case."""
        meaning = None
        attempts_before = hop.call.attempts
        try:
            await self._back_off(hop, ended, planned)
            hop.call.next_attempt()
            number, now_s = attempt.number + 1, trio.current_time()
            following = await self._inner(Attempt(hop, number, hop.call.progress, now_s))
            if following.refused is None:
                meaning = following.meaning
            return following
        finally:
            if meaning is None and hop.call.attempts > attempts_before:
                # Cancelled on its way: it went out, and an upstream that keeps silent until
                # deadlines pass must not be asked again for nothing.
                meaning = NO_EVIDENCE
            retry.settle(hop.of_tenant.quota, planned, meaning, trio.current_time())

    async def _back_off(self, hop: Hop, ended: Ended, planned: RetryAt) -> None:
        call = hop.call
        call.waiting_for = "waiting to try again"
        started_s = trio.current_time()
        try:
            if ended.response is not None:
                # Not up to the deadline itself: a backoff that is begun leads to an attempt.
                latest_s = (planned.at_s + call.deadline.expires_at_s) / 2
                until_s = max(planned.at_s, min(started_s + _KEEP_S, latest_s))
                with trio.move_on_at(until_s) as patience:
                    await ended.response.keep(_KEPT_BYTES)
                if patience.cancelled_caught:
                    ended.response.abort()
            await trio.sleep_until(planned.at_s)
            await self._rest(hop)
        except BaseException:
            if ended.response is not None:
                ended.response.abort()
            raise
        finally:
            waited_s = trio.current_time() - started_s
            call.backoff_us += round(waited_s * 1e6)
            self._around.meters.waited("backoff", waited_s)
        call.waiting_for = ""

    async def _rest(self, hop: Hop) -> None:
        """Wait on where other calls' 429s have lengthened the credential's rest meanwhile."""
        if hop.policies.cooldown.mode is not Mode.ENFORCE:
            return
        cooldown = hop.of_credential.cooldown
        expires_at_s = hop.call.deadline.expires_at_s
        # Looked at anew each time: who sleeps is not told that the rest was lengthened.
        while trio.current_time() < cooldown.rests_until_s < expires_at_s:  # noqa: ASYNC110 - see above
            await trio.sleep_until(cooldown.rests_until_s)


def _tells_more(ended: Ended) -> bool:
    """Whether the end before tells more than that the next attempt was refused."""
    return ended.response is None or ended.response.is_kept
