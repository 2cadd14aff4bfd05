"""Keep to the limits that an upstream tells, before it has to refuse.

Each answer may say what is left and when it is whole again (`rate_headers`). That word holds as of
the call it answers, so what was begun after that call is taken off, and an answer to an earlier
call does not replace it. When too little is left, calls wait for it to come back: bit by bit where
the upstream refills evenly, at the reset where it counts windows. At the reset a round of the same
length begins with the limit it told, so that not all who waited go at once.

Those who wait stand in a line that a driver keeps. Its head asks `decide` and sleeps; who comes
asks `forecast` whether it may stand behind the others.

An upstream may tell of days, and callers choose their upstreams. So no word holds for longer than
an hour: then a round tries anew, and its first answer tells again. And a word keeps its machine in
memory no longer than somebody may be waiting for it (`max_wait_s`): beyond that it only refuses,
and one that forgets it where nobody calls any more is refused once by the upstream instead.

A 429 that came nevertheless lowers `rate_ratio` (AIMD), by which a driver scales the configured
rate limit of the key.
"""

import math
from array import array
from collections.abc import Iterable
from typing import Final

import attrs
from attrs.validators import ge, le

from vastar_runtime.policy.aimd import Aimd, AimdSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_headers import Hint, Unit
from vastar_runtime.policy.verdicts import Refused, Scope

__all__ = ["Go", "HeaderLearning", "HeaderSettings", "WaitUntil"]


@attrs.frozen
class HeaderSettings:
    """How far to trust what an upstream tells.

    Attributes:
        max_wait_s: what it tells beyond this is not waited for but refused.
        aimd: what a 429 does.
        mode: how far its verdicts reach; for the driver, the machine itself does not ask.
    """

    max_wait_s: float = attrs.field(default=120.0, validator=[ge(0.0), le(86400.0)])
    aimd: AimdSettings = attrs.field(factory=AimdSettings)
    mode: Mode = Mode.ENFORCE


@attrs.define(eq=False)
class Go:
    """Nothing that was learned speaks against the call.

    Attributes:
        nth_request: requests begun up to and with this one.
        nth_token: tokens begun up to and with this call's.
        tokens: this call's.
    """

    nth_request: int
    nth_token: int
    tokens: int


@attrs.frozen
class WaitUntil:
    """Ask again at `at_s`, or when an answer came that may know better."""

    at_s: float


class _Word:
    """Where the numbers of one unit lie in the array that keeps them.

    An array of floats and not an object a unit: 100,000 upstreams that talk must not fill the
    memory, and boxed floats would take three times as much.
    """

    UNIT, REMAINING, BEGUN, TOLD_AT_S, RESET_AT_S, ROUND_S, LIMIT, EACH_AFTER_S = range(8)
    LENGTH = 8


_UNITS: Final = tuple(Unit)
_REQUESTS: Final = _UNITS.index(Unit.REQUESTS)
_NOTHING: Final = array("d")
"""Shared by all that learned nothing; never written to, as it has no word to change."""

_LEAST_ROUND_S: Final = 1.0
"""A round that was told to be shorter is not worth keeping to."""

_LONGEST_WORD_S: Final = 3600.0
"""The longest window that is common (a day's quota is the next); ours, see above."""

_ROUNDING: Final = 1e-6
"""Less than this is missing only by rounding."""


class HeaderLearning:
    """What the upstream of one credential told.

    `decide` before each call; `answered` when the head of its answer came, or `not_sent`.
    `forecast` where others wait already.
    """

    __slots__ = ("_aimd", "_requests", "_settings", "_tokens", "_words")

    def __init__(self, settings: HeaderSettings) -> None:
        self._settings = settings
        self._words = _NOTHING
        self._aimd: Aimd | None = None
        self._requests = 0
        self._tokens = 0

    def configure(self, settings: HeaderSettings) -> None:
        """Go on under other settings; what was learned stays."""
        self._settings = settings

    @property
    def rate_ratio(self) -> float:
        """The part of a configured rate that the upstream seems to bear, 1.0 = all."""
        return 1.0 if self._aimd is None else self._aimd.ratio

    def remaining(self, now_s: float) -> dict[str, float]:
        """What is left by unit, as far as it is known; for people. Looking changes nothing."""
        return {
            _UNITS[int(self._words[at])].value: self._left(now_s, at)
            for at in self._each_word()
            if self._words[at + _Word.RESET_AT_S] > now_s
        }

    def is_droppable(self, now_s: float) -> bool:
        """Whether all that was learned is out of date, or nobody can be waiting for it."""
        return now_s >= self.worth_until_s()

    def decide(self, now_s: float, tokens: int, give_up_at_s: float) -> Go | WaitUntil | Refused:
        """Whether one more call may go, counting it if so.

        Args:
            now_s: the monotonic clock.
            tokens: what it may cost, 0 where tokens are not counted.
            give_up_at_s: a wait that ends later is refused.
        """
        if self._words:
            verdict = self._forecast(now_s, tokens, 0, give_up_at_s)
            if verdict is not None:
                return verdict
        self._requests += 1
        self._tokens += tokens
        return Go(self._requests, self._tokens, tokens)

    def forecast(
        self, now_s: float, tokens: int, ahead: int, give_up_at_s: float
    ) -> WaitUntil | Refused | None:
        """When one more call could go behind others that wait, at the earliest; counts nothing.

        Each of those ahead takes one request; what tokens they take is theirs to know, so this is a
        lower bound. Without tokens it is what they will find if no answer tells more.

        Args:
            now_s: the monotonic clock.
            tokens: what it may cost, 0 where tokens are not counted.
            ahead: calls that wait already and go before it.
            give_up_at_s: a wait that ends later is refused.

        Returns:
            When it could go; a refusal where that is too late; None where it could go now.
        """
        return self._forecast(now_s, tokens, ahead, give_up_at_s)

    def worth_until_s(self) -> float:
        """Until when what was learned is worth keeping, as things stand; 0.0 where nothing is."""
        words, max_wait_s = self._words, self._settings.max_wait_s
        until_s = 0.0 if self._aimd is None else self._aimd.worth_until_s
        for at in self._each_word():
            told_s, reset_s = words[at + _Word.TOLD_AT_S], words[at + _Word.RESET_AT_S]
            until_s = max(until_s, min(reset_s, told_s + max_wait_s))
        return until_s

    def _forecast(
        self, now_s: float, tokens: int, ahead: int, give_up_at_s: float
    ) -> WaitUntil | Refused | None:
        at_s, unit = self._ready_at(now_s, tokens, ahead)
        if at_s <= now_s:
            return None
        if at_s <= min(give_up_at_s, now_s + self._settings.max_wait_s):
            return WaitUntil(at_s)
        reason = f"the upstream has too few {unit.value} left for {at_s - now_s:.0f} s"
        return Refused("learned_limit", Scope.CREDENTIAL, at_s - now_s, reason)

    def answered(self, now_s: float, go: Go, hints: Iterable[Hint], *, was_throttled: bool) -> None:
        """The head of an answer came.

        Args:
            now_s: the monotonic clock.
            go: what `decide` gave the call.
            hints: what the answer's headers say.
            was_throttled: whether its status is 429.
        """
        for hint in hints:
            self._learn(now_s, go, hint)
        if was_throttled:
            if self._aimd is None:
                self._aimd = Aimd(self._settings.aimd)
            self._aimd.overloaded(now_s)
        elif self._aimd is not None:
            self._aimd.succeeded()
            if self._aimd.is_full:
                self._aimd = None

    def not_sent(self, go: Go) -> None:
        """A call that was told to go never left: nothing was used. To be said once a call."""
        for at in self._each_word():
            is_requests = self._words[at] == _REQUESTS
            nth = go.nth_request if is_requests else go.nth_token
            if nth > self._words[at + _Word.BEGUN]:
                self._words[at + _Word.REMAINING] += 1 if is_requests else go.tokens

    def _each_word(self) -> range:
        return range(0, len(self._words), _Word.LENGTH)

    def _begun(self, at: int) -> int:
        return self._requests if self._words[at] == _REQUESTS else self._tokens

    def _left(self, now_s: float, at: int) -> float:
        """What is left of a word's unit, less what was begun since."""
        words = self._words
        left = words[at + _Word.REMAINING] - (self._begun(at) - words[at + _Word.BEGUN])
        if words[at + _Word.EACH_AFTER_S]:
            left += (now_s - words[at + _Word.TOLD_AT_S]) / words[at + _Word.EACH_AFTER_S]
            left = min(left, words[at + _Word.LIMIT])
        return left

    def _learn(self, now_s: float, go: Go, hint: Hint) -> None:
        index = _UNITS.index(hint.unit)
        begun = go.nth_request if index == _REQUESTS else go.nth_token
        each_after_s = 0.0
        if hint.refills_evenly and hint.limit is not None and hint.limit > hint.remaining:
            each_after_s = hint.reset_after_s / (hint.limit - hint.remaining)
        round_s = min(hint.reset_after_s, _LONGEST_WORD_S)
        numbers = (
            index,
            hint.remaining,
            begun,
            now_s,
            now_s + round_s,
            max(round_s, _LEAST_ROUND_S),
            math.inf if hint.limit is None else hint.limit,
            each_after_s,
        )
        word = array("d", numbers)
        for at in self._each_word():
            if self._words[at] == index:
                if begun >= self._words[at + _Word.BEGUN]:
                    self._words[at : at + _Word.LENGTH] = word
                return
        self._words = self._words + word  # not in place: `_NOTHING` is shared

    def _begin_round(self, now_s: float, at: int) -> None:
        words = self._words
        words[at + _Word.REMAINING] = words[at + _Word.LIMIT]
        words[at + _Word.BEGUN] = self._begun(at)
        words[at + _Word.TOLD_AT_S] = now_s
        words[at + _Word.RESET_AT_S] = now_s + words[at + _Word.ROUND_S]

    def _ready_at(self, now_s: float, tokens: int, ahead: int) -> tuple[float, Unit]:
        """When there is enough of everything, and what comes last."""
        words = self._words
        latest_s, latest = now_s, Unit.REQUESTS
        for at in self._each_word():
            if words[at + _Word.RESET_AT_S] <= now_s:
                self._begin_round(now_s, at)
            if words[at] == _REQUESTS:
                at_s = self._enough_at_s(now_s, at, ahead + 1)
            else:
                # What is more than ever there goes once all is there: the upstream knows what to
                # do.
                at_s = self._enough_at_s(now_s, at, min(tokens, words[at + _Word.LIMIT]))
            if at_s > latest_s:
                latest_s, latest = at_s, _UNITS[int(words[at])]
        return latest_s, latest

    def _enough_at_s(self, now_s: float, at: int, needed: float) -> float:
        """When `needed` of a word's unit will have been there, taken as it comes."""
        words = self._words
        left = self._left(now_s, at)
        missing = needed - left
        if not needed or missing <= _ROUNDING:
            return now_s
        each_after_s, reset_at_s = words[at + _Word.EACH_AFTER_S], words[at + _Word.RESET_AT_S]
        if each_after_s:
            at_s = now_s + missing * each_after_s
            if at_s <= reset_at_s:
                return at_s
            left += (reset_at_s - now_s) / each_after_s
        limit, round_s = words[at + _Word.LIMIT], words[at + _Word.ROUND_S]
        missing = needed - max(left, 0.0)
        if missing <= limit:
            return reset_at_s
        # Whole rounds before the one in which it comes, and what must come back within that one.
        a_round = limit + (round_s / each_after_s if each_after_s else 0.0)
        rounds = math.ceil((missing - _ROUNDING) / a_round) - 1
        within = max(missing - rounds * a_round - limit, 0.0)
        return reset_at_s + rounds * round_s + within * each_after_s
