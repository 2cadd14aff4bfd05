"""The limits of one key: made by whoever makes machines, watched, and let go of."""

from collections.abc import Callable

from vastar_runtime.pipeline.limiters import UNLIMITED, Limiters
from vastar_runtime.pipeline.making import OwnMaker
from vastar_runtime.pipeline.policies import NO_LIMITS, LimitSettings
from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings

BOTH = LimitSettings(
    RateLimitSettings(5),
    TokenLimitSettings.per_minute(900),
    RateLimitSettings(7, policy="byte_limit"),
)
NAMES = ("rate_limit", "token_limit", "byte_limit")


class Recording(OwnMaker):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        self.made: list[tuple[str, ...]] = []
        self.watched: list[object] = []
        self.gone: list[object] = []

    def rate_limiter(self, settings: RateLimitSettings, names: tuple[str, ...]) -> RateLimiter:
        self.made.append((settings.policy, *names))
        return super().rate_limiter(settings, names)

    def token_limiter(self, settings: TokenLimitSettings, names: tuple[str, ...]) -> TokenLimiter:
        self.made.append((settings.rate.policy, *names))
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
    assert maker.made == [(name, "t", "w") for name in NAMES]
    assert tuple(name for name, _ in limiters.pacers()) == NAMES
    all_of_them = [pacer.limiter for _, pacer in limiters.pacers()]
    assert maker.watched == all_of_them
    limiters.let_go()
    assert maker.gone == all_of_them


def test_a_limit_that_comes_later_is_made_by_the_same_and_one_that_goes_is_let_go():
    maker = Recording()
    limiters = UNLIMITED.configured(BOTH, 0.0, maker=maker, names=("t",))
    assert maker.made == [(name, "t") for name in NAMES]
    gone = [pacer.limiter for _, pacer in limiters.pacers()]
    assert limiters.configured(NO_LIMITS, 0.0) is limiters
    assert [*limiters.pacers()] == []
    assert maker.gone == gone
    limiters.configured(BOTH, 0.0)
    assert len(maker.made) == 2 * len(NAMES)


def test_they_follow_a_rate_and_are_kept_while_one_of_them_owes():
    limiters = Limiters.of(BOTH)
    limiters.scale(0.5, 0.0)
    assert [pacer.limiter.settings.max_cost for _, pacer in limiters.pacers()] == [2, 450, 4]
    limiters.scale(1.0, 0.0)
    assert limiters.is_droppable(0.0)
    assert limiters.volume is not None
    limiters.volume.limiter.decide(0.0, 3)
    assert not limiters.is_droppable(0.0)
    assert limiters.waiting == 0


def test_one_that_stays_keeps_what_it_knows_under_another_number():
    limiters = Limiters.of(BOTH)
    kept = [pacer for _, pacer in limiters.pacers()]
    for pacer in kept:
        pacer.limiter.decide(0.0, 3)
    other = LimitSettings(
        RateLimitSettings(6), TokenLimitSettings.per_minute(800), RateLimitSettings(9)
    )
    assert limiters.configured(other, 0.0) is limiters
    assert [pacer for _, pacer in limiters.pacers()] == kept
    assert [pacer.limiter.settings.max_cost for pacer in kept] == [6, 800, 9]
    assert [pacer.limiter.held for pacer in kept] == [3, 3, 3]
