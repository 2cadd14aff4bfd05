"""Limits that an upstream tells of itself: an attempt waits for them, and every answer teaches.

Who has to wait stands in line, and only the first in line asks: so they go in order, and an answer
that tells more wakes one of them. Where upstream and configuration both limit, this is asked first:
it is the upstream's own word.
"""

from typing import Final

import trio

from vastar_runtime.pipeline.attempt import Attempt, Ended, Hop, Layer
from vastar_runtime.pipeline.limiting import limiters
from vastar_runtime.pipeline.line import Line
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.header_learning import Go, WaitUntil
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_headers import read_hints
from vastar_runtime.policy.verdicts import Refused

__all__ = ["LearnedLimitLayer"]

_TOO_MANY_REQUESTS: Final = 429
_ENFORCE: Final = Mode.ENFORCE


class LearnedLimitLayer:
    """Keeps to what the answers of a credential said is left."""

    name = "learned_limit"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        self._inner = inner
        self._around = surroundings

    async def __call__(self, attempt: Attempt) -> Ended:
        """Ask, wait, go on, and learn."""
        hop = attempt.hop
        credential = hop.of_credential
        line = credential.line
        tokens = _tokens(hop, self._around) if hop.policies.has_token_limits else 0
        expires_at_s = hop.call.deadline.expires_at_s
        verdict: Go | WaitUntil | Refused | None
        if line is None or not line.length:
            verdict = credential.learning.decide(attempt.at_s, tokens, expires_at_s)
        else:
            verdict = credential.learning.forecast(attempt.at_s, tokens, line.length, expires_at_s)
        gate = self._around.gates.of(self.name, hop.policies.header_learning.mode)
        if isinstance(verdict, Go):
            gate.apply(None)
        elif gate.apply(verdict or WaitUntil(attempt.at_s)) is None:
            return await self._inner(
                attempt
            )  # observed only; it learns nothing, as it was not told
        elif not isinstance(verdict, Refused):
            verdict = await self._wait(attempt, tokens)
        if isinstance(verdict, Refused):
            return Ended.by_refusal(verdict)
        try:
            ended = await self._inner(attempt)
        except BaseException:
            self._was_not_answered(attempt, verdict)
            raise
        if ended.response is None:
            self._was_not_answered(attempt, verdict)
        else:
            self._learn(hop, verdict, ended)
        return ended

    async def _wait(self, attempt: Attempt, tokens: int) -> Go | Refused:
        """Stand in line until the upstream's word lets this attempt go."""
        hop = attempt.hop
        credential, expires_at_s = hop.of_credential, hop.call.deadline.expires_at_s
        line = credential.line
        if line is None:
            line = credential.line = Line()
        words = "waiting for the upstream's own rate limit"
        with self._around.waiting(hop.call, self.name, words):
            async with line.first():
                while isinstance(
                    verdict := credential.learning.decide(
                        trio.current_time(), tokens, expires_at_s
                    ),
                    WaitUntil,
                ):
                    await line.sleep_until(verdict.at_s)
        attempt.at_s = trio.current_time()
        return verdict

    def _was_not_answered(self, attempt: Attempt, go: Go) -> None:
        if not attempt.progress.request_begun:
            credential = attempt.hop.of_credential
            credential.learning.not_sent(go)
            credential.ring()

    def _learn(self, hop: Hop, go: Go, ended: Ended) -> None:
        """Take in what the answer tells about the limits of its upstream."""
        response, credential = ended.response, hop.of_credential
        assert response is not None
        hints = read_hints(response.headers, self._around.wall_clock_s())
        was_throttled = response.status == _TOO_MANY_REQUESTS
        credential.learning.answered(ended.at_s, go, hints, was_throttled=was_throttled)
        if hints:
            credential.ring()
        is_news = credential.is_slowed or credential.learning.rate_ratio < 1
        if is_news and hop.policies.header_learning.mode is _ENFORCE:
            credential.follow_upstream(ended.at_s)


def _tokens(hop: Hop, surroundings: Surroundings) -> int:
    """The tokens that the upstream may count for a request; 0 where it has none."""
    request = hop.llm_request()
    if request is None:
        return 0
    return max(
        (
            each.tokens.limiter.estimate(request)
            for each, _ in limiters(hop, surroundings)
            if each.tokens is not None
        ),
        default=0,
    )
