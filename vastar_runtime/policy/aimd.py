"""Feel for a limit that nobody tells: additive increase, multiplicative decrease.

As in TCP's congestion avoidance: a little more after each success, a good part less when the other
side says too much. Those who share an upstream in this way end with equal shares.
"""

import math

import attrs
from attrs.validators import ge, gt, le, lt

__all__ = ["Aimd", "AimdSettings"]


@attrs.frozen
class AimdSettings:
    """How to feel.

    Attributes:
        least_ratio: never below this part of the full value.
        decrease_ratio: what one overload leaves of the value.
        increase_ratio: what one success adds, as a part of the full value.
        hold_s: overloads this soon after a decrease are the same event: many calls hear of it.
        forget_s: a decrease this long ago says nothing about now, where no call came since.

    Raises:
        ValueError: a number is out of range; the message names it.
    """

    least_ratio: float = attrs.field(default=0.05, validator=[gt(0.0), le(1.0)])
    decrease_ratio: float = attrs.field(default=0.7, validator=[gt(0.0), lt(1.0)])
    increase_ratio: float = attrs.field(default=0.005, validator=[gt(0.0), le(1.0)])
    hold_s: float = attrs.field(default=1.0, validator=[ge(0.0), le(3600.0)])
    forget_s: float = attrs.field(default=600.0, validator=[ge(0.0), le(86400.0)])


class Aimd:
    """The part of a full value that is used now: `ratio`, 1.0 = all."""

    __slots__ = ("_decreased_at_s", "_settings", "ratio")

    def __init__(self, settings: AimdSettings) -> None:
        self._settings = settings
        self._decreased_at_s = -math.inf
        self.ratio = 1.0

    @property
    def decreased_at_s(self) -> float:
        """When the ratio was last decreased; minus infinity where it never was."""
        return self._decreased_at_s

    @property
    def worth_until_s(self) -> float:
        """Until when it is worth keeping; minus infinity where nothing is held back."""
        return -math.inf if self.is_full else self._decreased_at_s + self._settings.forget_s

    @classmethod
    def resumed(cls, settings: AimdSettings, ratio: float, decreased_at_s: float) -> "Aimd":
        """One that goes on where another one is."""
        aimd = cls(settings)
        aimd.ratio, aimd._decreased_at_s = ratio, decreased_at_s
        return aimd

    def overloaded(self, now_s: float) -> bool:
        """The other side said too much; whether that decreased the ratio."""
        if now_s - self._decreased_at_s < self._settings.hold_s:
            return False
        self._decreased_at_s = now_s
        self.ratio = max(self.ratio * self._settings.decrease_ratio, self._settings.least_ratio)
        return True

    def succeeded(self) -> None:
        """A call went well."""
        self.ratio = min(self.ratio + self._settings.increase_ratio, 1.0)

    def is_droppable(self, now_s: float) -> bool:
        """Whether a new one would do as well."""
        return now_s >= self.worth_until_s

    @property
    def is_full(self) -> bool:
        """Whether nothing is held back."""
        return self.ratio >= 1.0
