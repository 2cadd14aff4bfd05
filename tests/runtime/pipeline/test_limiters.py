"""The limits of one key: made by whoever makes machines, watched, and let go of."""

from collections.abc import Callable

from vastar_runtime.pipeline.limiters import UNLIMITED, Limiters
from vastar_runtime.pipeline.making import OwnMaker
from vastar_runtime.pipeline.policies import NO_LIMITS, LimitSettings
from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings

BOTH = LimitSettings(RateLimitSettings(5), TokenLimitSettings.per_minute(900))


class Recording(OwnMaker):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        self.made: list[tuple[str, ...]] = []
        self.watched: list[object] = []
        self.gone: list[object] = []

    def rate_limiter(self, settings: RateLimitSettings, names: tuple[str, ...]) -> RateLimiter:
        self.made.append(("requests", *names))
        return super().rate_limiter(settings, names)

    def token_limiter(self, settings: TokenLimitSettings, names: tuple[str, ...]) -> TokenLimiter:
        self.made.append(("tokens", *names))
        return super().token_limiter(settings, names)

    def watch(self, machine: object, look: Callable[[float], None]) -> None:
        look(0.0)  # it may be asked at any time
        self.watched.append(machine)

    def let_go(self, *machines: object) -> None:
        self.gone.extend(machines)


def test_those_without_limits_share_what_they_have():
    maker = Recording()
    assert Limiters.of(NO_LIMITS, maker, ("t",)) is UNLIMITED
    UNLIMITED.let_go()
    assert maker.made == maker.gone == []


def test_they_are_made_for_their_key_watched_and_let_go():
    maker = Recording()
    limiters = Limiters.of(BOTH, maker, ("t", "w"))
    assert maker.made == [("requests", "t", "w"), ("tokens", "t", "w")]
    assert limiters.requests is not None
    assert limiters.tokens is not None
    both = [limiters.requests.limiter, limiters.tokens.limiter]
    assert maker.watched == both
    limiters.let_go()
    assert maker.gone == both


def test_a_limit_that_comes_later_is_made_by_the_same_and_one_that_goes_is_let_go():
    maker = Recording()
    limiters = UNLIMITED.configured(BOTH, 0.0, maker=maker, names=("t",))
    assert maker.made == [("requests", "t"), ("tokens", "t")]
    gone = [pacer.limiter for pacer in (limiters.requests, limiters.tokens) if pacer is not None]
    assert limiters.configured(NO_LIMITS, 0.0) is limiters
    assert limiters.requests is limiters.tokens is None
    assert maker.gone == gone
    limiters.configured(BOTH, 0.0)
    assert len(maker.made) == 4
