"""Machines of one process are plain ones, and nobody has to be told of them."""

from vastar_runtime.pipeline.making import OWN, Maker, OwnMaker
from vastar_runtime.policy.admission import Admission, AdmissionSettings
from vastar_runtime.policy.breaker import Breaker, BreakerSettings
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.header_learning import HeaderLearning, HeaderSettings
from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings
from vastar_runtime.policy.verdicts import Scope


def test_each_is_a_plain_machine_of_its_kind():
    maker: Maker = OWN
    assert isinstance(maker, OwnMaker)
    made = {
        Admission: maker.admission(AdmissionSettings()),
        Breaker: maker.breaker(BreakerSettings(), Scope.TENANT, ("t", "o")),
        RetryQuota: maker.retry_quota(QuotaSettings(), ("t", "o")),
        Cooldown: maker.cooldown(CooldownSettings(), ("t", "w", "o")),
        HeaderLearning: maker.learning(HeaderSettings(), ("t", "w", "o")),
        RateLimiter: maker.rate_limiter(RateLimitSettings(5), ("t",)),
        TokenLimiter: maker.token_limiter(TokenLimitSettings.per_minute(9), ("t",)),
    }
    for kind, machine in made.items():
        assert type(machine) is kind
        maker.watch(machine, lambda _now_s: None)
    assert made[Breaker].scope is Scope.TENANT
    maker.refresh(0.0)
    maker.sweep()
    maker.let_go(*made.values())
