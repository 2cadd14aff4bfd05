"""The settings of the policies for every call, made from a configuration.

Shape: an immutable book for each configuration, rather than one that changes: a reload makes a new
one, so that whoever brings the machines up to it sees one configuration and never half of two, and
a refused file leaves nothing behind.

What holds for a call depends only on which *written* places it falls under. So the merged settings
are kept by those, never by the names that callers send, and most calls fall under none: for them a
look-up is three failed ones. A configuration of many tenants and many origins has more combinations
than would fit; so their number is bounded, and equal settings are one object wherever they occur.
"""

from typing import Any, Final, Protocol, TypeVar

from vastar_runtime.config import (
    BreakerConfig,
    BulkheadConfig,
    ByteLimitConfig,
    EgressConfig,
    HeaderLearningConfig,
    PoliciesConfig,
    QueueConfig,
    RateLimitConfig,
    RetryConfig,
    RetryQuotaConfig,
    RuntimeConfig,
    TokenLimitConfig,
    compare,
    merge,
    written_for,
)
from vastar_runtime.pipeline.policies import NO_LIMITS, CallPolicies, LimitSettings
from vastar_runtime.policy.admission import AdmissionSettings
from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.backoff import BackoffSettings
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.concurrency import ConcurrencySettings
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.egress import EgressRules, EgressSettings
from vastar_runtime.policy.header_learning import HeaderSettings
from vastar_runtime.policy.hedging import HedgeSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.retry_quota import QuotaSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.policy.verdicts import Scope

__all__ = ["MAX_COMBINATIONS", "PolicyBook", "egress_changed", "has_strangers"]

MAX_COMBINATIONS: Final = 16_384
"""Of written places that are kept merged: about 8 MB. Beyond it all are forgotten and made again
as they are asked for, at some 100 us each."""

_MAX_BYTES_DEBT_S: Final = 3600.0
"""What a long answer can owe: nobody knows its length before, and it is real, unlike a guess."""

_Settings = TypeVar("_Settings")
_Places = tuple[str | None, tuple[str, str] | None, str | None]


class PolicyBook:
    """Where the merged settings of one configuration are looked up.

    Args:
        config: as loaded, so with canonical origins and numbers in range.
    """

    __slots__ = ("_config", "_has_strangers", "_is_plain", "_merged", "_of_all", "_origins",
                 "_shared", "_tenants", "_workspaces")  # fmt: skip

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._tenants = frozenset(
            name for name, tenant in config.tenants.items() if tenant.policies
        )
        self._workspaces = frozenset(
            (name, workspace)
            for name, tenant in config.tenants.items()
            for workspace, tables in tenant.workspaces.items()
            if tables
        )
        self._origins = frozenset(name for name, tables in config.origins.items() if tables)
        self._has_strangers = has_strangers(config)
        self._is_plain = not (self._tenants or self._workspaces or self._origins)
        self._merged: dict[_Places, CallPolicies] = {}
        self._shared: dict[Any, Any] = {}
        self._of_all = self._make((None, None, None))

    def of(
        self, tenant: str | None = None, workspace: str | None = None, origin: str | None = None
    ) -> CallPolicies:
        """The settings of a place; None leaves that level out.

        The same object for the same written places, until `MAX_COMBINATIONS` others were asked for.

        Args:
            tenant: its name.
            workspace: its name; only with a tenant.
            origin: `str` of an `Origin`.
        """
        if self._is_plain:
            return self._of_all
        places = (
            tenant if tenant in self._tenants else None,
            pair if (pair := (tenant, workspace)) in self._workspaces else None,
            origin if origin in self._origins else None,
        )
        return self._merged.get(places) or self._make(places)

    def _make(self, places: _Places) -> CallPolicies:
        tenant, pair, origin = places
        tenant, workspace = pair or (tenant, None)
        written = written_for(self._config, tenant, workspace, origin)
        merged = merge(self._config.defaults, [place.tables for place in written])
        if len(self._merged) >= MAX_COMBINATIONS:
            self._merged.clear()
            self._shared.clear()
        self._merged[places] = policies = _policies(
            merged, self._share, has_strangers=self._has_strangers
        )
        return policies

    def _share(self, settings: _Settings) -> _Settings:
        """The one object of all that equal `settings`."""
        shared: _Settings = self._shared.setdefault(settings, settings)
        return shared


class _Share(Protocol):
    def __call__(self, settings: _Settings, /) -> _Settings:
        """The one object of all that equal `settings`."""


def has_strangers(config: RuntimeConfig) -> bool:
    """Whether others than the runtime's own user may call: somebody is said to use a tenant."""
    return any(tenant.has_identity for tenant in config.tenants.values())


def egress_changed(old: RuntimeConfig, new: RuntimeConfig) -> bool:
    """Whether calls may go elsewhere than before, so that what is open may lead too far."""
    keys = compare(old, new).applied
    return has_strangers(old) != has_strangers(new) or any(".egress." in key for key in keys)


def _policies(config: PoliciesConfig, share: _Share, *, has_strangers: bool) -> CallPolicies:
    cooldown, hedging = config.cooldown, config.hedging
    return share(
        CallPolicies(
            admission=share(_admission(config.bulkhead, config.queue)),
            retry=share(_retry(config.retry)),
            retry_quota=share(_quota(config.retry_quota)),
            hedging=share(
                HedgeSettings(
                    mode=Mode(hedging.mode),
                    after_s=hedging.after_s,
                    budget_ratio=hedging.budget_ratio,
                    budget_max=hedging.budget_max,
                )
            ),
            header_learning=share(_header_learning(config.header_learning)),
            limits=share(
                _limits(config.rate_limit, config.token_limit, config.byte_limit, Scope.CREDENTIAL)
            ),
            workspace_limits=share(
                _limits(
                    config.workspace_rate_limit,
                    config.workspace_token_limit,
                    config.workspace_byte_limit,
                    Scope.WORKSPACE,
                )
            ),
            tenant_limits=share(
                _limits(
                    config.tenant_rate_limit,
                    config.tenant_token_limit,
                    config.tenant_byte_limit,
                    Scope.TENANT,
                )
            ),
            origin_limits=share(
                _limits(
                    config.origin_rate_limit,
                    config.origin_token_limit,
                    config.origin_byte_limit,
                    Scope.ORIGIN,
                )
            ),
            cooldown=share(
                CooldownSettings(
                    mode=Mode(cooldown.mode),
                    base_s=cooldown.base_s,
                    unhinted_max_s=cooldown.unhinted_max_s,
                    hinted_max_s=cooldown.hinted_max_s,
                    jitter_ratio=cooldown.jitter_ratio,
                )
            ),
            breaker=share(_breaker(config.breaker)),
            attempt_timeout_s=config.attempt.timeout_s or None,
            egress=share(_egress(config.egress, has_strangers=has_strangers)),
        )
    )


def _admission(bulkhead: BulkheadConfig, queue: QueueConfig) -> AdmissionSettings:
    adaptive = AimdSettings(
        least_ratio=bulkhead.adaptive_least_ratio,
        decrease_ratio=bulkhead.adaptive_decrease_ratio,
        increase_ratio=bulkhead.adaptive_increase_ratio,
        hold_s=bulkhead.adaptive_hold_s,
        forget_s=bulkhead.adaptive_forget_s,
    )
    return AdmissionSettings(
        mode=Mode(bulkhead.mode),
        concurrency=ConcurrencySettings(
            max_in_runtime=bulkhead.max_in_runtime,
            max_per_tenant=bulkhead.max_per_tenant,
            max_per_origin=bulkhead.max_per_origin,
            adaptive=adaptive if bulkhead.adaptive else None,
        ),
        max_waiting_per_tenant=queue.max_waiting_per_tenant,
        tenant_weight=queue.tenant_weight,
        first_retry_after_s=queue.first_retry_after_s,
    )


def _retry(retry: RetryConfig) -> RetrySettings:
    return RetrySettings(
        mode=Mode(retry.mode),
        attempts=retry.attempts,
        backoff=BackoffSettings(
            base_s=retry.base_s, throttled_base_s=retry.throttled_base_s, cap_s=retry.cap_s
        ),
        retry_after_max_s=retry.retry_after_max_s,
        retry_after_jitter_ratio=retry.retry_after_jitter_ratio,
    )


def _quota(quota: RetryQuotaConfig) -> QuotaSettings:
    return QuotaSettings(
        mode=Mode(quota.mode),
        most_tokens=quota.most_tokens,
        transient_cost=quota.transient_cost,
        throttled_cost=quota.throttled_cost,
        earned_per_success=quota.earned_per_success,
        forget_after_s=quota.forget_after_s,
    )


def _header_learning(learning: HeaderLearningConfig) -> HeaderSettings:
    return HeaderSettings(
        mode=Mode(learning.mode),
        max_wait_s=learning.max_wait_s,
        aimd=AimdSettings(
            least_ratio=learning.least_ratio,
            decrease_ratio=learning.decrease_ratio,
            increase_ratio=learning.increase_ratio,
            hold_s=learning.hold_s,
            forget_s=learning.forget_s,
        ),
    )


def _breaker(breaker: BreakerConfig) -> BreakerSettings:
    return BreakerSettings(
        mode=Mode(breaker.mode),
        window_s=breaker.window_s,
        buckets=breaker.buckets,
        failure_ratio=breaker.failure_ratio,
        min_calls=breaker.min_calls,
        no_answer_run=breaker.no_answer_run,
        open_s=breaker.open_s,
        open_max_s=breaker.open_max_s,
        probes=breaker.probes,
        probe_lease_s=breaker.probe_lease_s,
        successes_to_close=breaker.successes_to_close,
        slow_call_s=breaker.slow_call_s or None,
    )


def _egress(egress: EgressConfig, *, has_strangers: bool) -> EgressRules:
    is_public = egress.addresses == "public" or (egress.addresses == "auto" and has_strangers)
    return EgressRules(
        EgressSettings(
            mode=Mode(egress.mode),
            public_only=is_public,
            allow_hosts=egress.allow_hosts,
            deny_hosts=egress.deny_hosts,
            allow_ports=egress.allow_ports,
            schemes=egress.schemes,
            allow_ranges=egress.allow_ranges,
            deny_ranges=egress.deny_ranges,
        )
    )


def _limits(
    requests: RateLimitConfig, tokens: TokenLimitConfig, volume: ByteLimitConfig, scope: Scope
) -> LimitSettings:
    calls = _rate(requests, scope, "rate_limit")
    rate = _rate(tokens, scope, "token_limit")
    octets = _rate(volume, scope, "byte_limit", max_debt_s=_MAX_BYTES_DEBT_S)
    if calls is None and rate is None and octets is None:
        return NO_LIMITS
    return LimitSettings(
        requests=calls,
        tokens=None if rate is None else TokenLimitSettings(rate, tokens.default_max_tokens),
        volume=octets,
    )


def _rate(
    limit: RateLimitConfig | TokenLimitConfig | ByteLimitConfig,
    scope: Scope,
    policy: str,
    *,
    max_debt_s: float = 0.0,
) -> RateLimitSettings | None:
    if limit.limit is None:
        return None
    return RateLimitSettings(
        limit=limit.limit,
        period_s=limit.period_s,
        burst=limit.burst,
        max_waiting=limit.max_waiting,
        scope=scope,
        policy=policy,
        mode=Mode(limit.mode),
        max_debt_s=max_debt_s,
    )
