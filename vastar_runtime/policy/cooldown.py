"""A credential that was throttled is left alone for a while: 429 opens it, time ends it.

A 429 speaks of a key, not of a host, so it shuts neither the host nor the tenant's other keys: the
machine stands for one (tenant, workspace, origin). It lasts as long as that answer asked for; where
it asked for nothing, for a time that doubles with each round of 429s. Answers of one round, those
that were under way together, count once: fifty calls refused at once are one news. A success after
the cooldown ends the doubling. Only the time is kept, not the hint: the next 429 brings its own.
"""

from typing import Final

import attrs
from attrs.validators import ge, gt

from vastar_runtime.policy.backoff import doubled_s
from vastar_runtime.policy.breaker import Evidence
from vastar_runtime.policy.classify import Meaning
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Refused, Scope

__all__ = ["Cooldown", "CooldownSettings"]

_ANSWERED: Final = frozenset({Evidence.SUCCESS, Evidence.ANSWERED})


@attrs.frozen
class CooldownSettings:
    """How long a credential rests.

    Attributes:
        base_s, unhinted_max_s: without a hint, the first time and the longest; half is jitter.
        hinted_max_s: no hint holds longer than this, so that nonsense cannot shut a credential.
        jitter_ratio: up to this share is added to a hint, so that callers do not return as one.
    """

    mode: Mode = Mode.ENFORCE
    base_s: float = attrs.field(default=1.0, validator=gt(0))
    unhinted_max_s: float = attrs.field(default=20.0, validator=gt(0))
    hinted_max_s: float = attrs.field(default=300.0, validator=gt(0))
    jitter_ratio: float = attrs.field(default=0.25, validator=ge(0))


@attrs.define(eq=False)
class Cooldown:
    """One credential at one origin.

    Attributes:
        round: how many cooldowns there have been; a call carries the one it was admitted in.
        in_flight: admissions that have not been reported.
    """

    _settings: CooldownSettings
    round: int = attrs.field(init=False, default=0)
    in_flight: int = attrs.field(init=False, default=0)
    _until_s: float = attrs.field(init=False, default=float("-inf"))
    _in_a_row: int = attrs.field(init=False, default=0)

    def configure(self, settings: CooldownSettings) -> None:
        """Go on under other settings; a cooldown under way stays as it is."""
        self._settings = settings

    def admit(self, now_s: float) -> int | Refused:
        """The round to report with, or a refusal while the credential rests."""
        if now_s < self._until_s:
            wait_s = self._until_s - now_s
            reason = "the upstream throttles this credential (429)"
            return Refused("cooldown", Scope.CREDENTIAL, wait_s, reason)
        self.in_flight += 1
        return self.round

    def report(
        self,
        round_: int,
        meaning: Meaning,
        now_s: float,
        random_ratio: float,
        retry_after_s: float | None,
    ) -> bool:
        """A call of that round ended; whether this began or lengthened the rest.

        Args:
            round_: what `admit` gave; every round comes back, exactly once.
            meaning: what `classify` makes of the result.
            now_s: a monotonic clock.
            random_ratio: uniform over [0, 1).
            retry_after_s: what this answer asked for, None where it did not.
        """
        self.in_flight -= 1
        is_news = round_ == self.round
        if not meaning.cools_down:
            if is_news and meaning.tenant in _ANSWERED:
                self._in_a_row = 0
            return False
        if is_news:
            self.round += 1
            self._in_a_row += 1
        elif retry_after_s is None:
            return False
        until_s = now_s + self._rest_s(random_ratio, retry_after_s)
        is_longer = until_s > self._until_s
        self._until_s = max(self._until_s, until_s)
        return is_longer

    @property
    def rests_until_s(self) -> float:
        """Until when it rests, in the past where it does not."""
        return self._until_s

    def rest_s(self, now_s: float) -> float:
        """How much longer it rests, 0.0 where it does not; looking changes nothing."""
        return max(0.0, self._until_s - now_s)

    def is_droppable(self, now_s: float) -> bool:
        """Whether a new one would do as well: rested, and for as long again as rests last."""
        return not self.in_flight and now_s >= self._until_s + self._settings.unhinted_max_s

    def _rest_s(self, random_ratio: float, retry_after_s: float | None) -> float:
        settings = self._settings
        if retry_after_s is not None:
            hinted_s = min(settings.hinted_max_s, retry_after_s)
            return hinted_s * (1 + settings.jitter_ratio * random_ratio)
        rest_s = doubled_s(settings.base_s, self._in_a_row - 1, settings.unhinted_max_s)
        return rest_s * (1 + random_ratio) / 2
