"""The keys of the policies: their types, ranges, defaults and meaning, and where each may stand.

One frozen Struct a table, with the defaults of the policy room: the two are written down twice,
because configuration stands below policies, and a test holds them equal. Ranges lie within what the
policies take, so that whatever loads can be built.

A number may stand only where the machine that it is for is looked up: what all callers of an origin
share cannot differ between tenants. `mode` may stand anywhere: it says what a verdict does to a
call, and each call has its own.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from vastar_runtime.config._credentials import Credentials
from vastar_runtime.config._databases import Databases
from vastar_runtime.config._identity import UserIds

__all__ = [
    "EVERYWHERE",
    "PLACES",
    "AttemptConfig",
    "BreakerConfig",
    "BulkheadConfig",
    "ByteLimitConfig",
    "CooldownConfig",
    "EgressConfig",
    "HeaderLearningConfig",
    "HedgingConfig",
    "PoliciesConfig",
    "PolicyTables",
    "QueueConfig",
    "RateLimitConfig",
    "RetryConfig",
    "RetryQuotaConfig",
    "TenantConfig",
    "TokenLimitConfig",
]

PolicyTables: TypeAlias = dict[str, dict[str, Any]]
"""What one place says: policy, key, checked value. What it does not say is not there."""

DEFAULTS: Final = "defaults"
TENANTS: Final = "tenants"
WORKSPACES: Final = "workspaces"
ORIGINS: Final = "origins"
PLACES: Final = {
    DEFAULTS: "defaults",
    TENANTS: "tenants.NAME",
    WORKSPACES: "tenants.NAME.workspaces.NAME",
    ORIGINS: 'origins."https://HOST"',
}
"""Kinds of places, in the order in which a later one outranks an earlier one, and how to write
a table of each."""

EVERYWHERE: Final = tuple(PLACES)
# The places of what belongs to the whole runtime, a tenant, a workspace, an origin (for all its
# callers), and a tenant at an origin.
_RUNTIME: Final = {"places": (DEFAULTS,)}
_TENANT: Final = {"places": (DEFAULTS, TENANTS)}
_WORKSPACE: Final = {"places": (DEFAULTS, TENANTS, WORKSPACES)}
_ORIGIN: Final = {"places": (DEFAULTS, ORIGINS)}
_TENANT_AT_ORIGIN: Final = {"places": (DEFAULTS, TENANTS, ORIGINS)}

_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
_MILLION: Final = 1_000_000
_MOST_PER_PERIOD: Final = 10**12

_Mode: TypeAlias = Annotated[
    Literal["enforce", "observe", "off"],
    Meta(
        description="enforce; observe: decide and count, but change nothing; off",
        extra={"places": EVERYWHERE},
    ),
]
_Time: TypeAlias = Annotated[float, Meta(ge=0.001, le=_HOUR_S)]
_LongTime: TypeAlias = Annotated[float, Meta(ge=0.001, le=_DAY_S)]
_TimeOrOff: TypeAlias = Annotated[float, Meta(ge=0, le=_HOUR_S)]
_Count: TypeAlias = Annotated[int, Meta(ge=1, le=_MILLION)]
_CountOrNone: TypeAlias = Annotated[int, Meta(ge=0, le=_MILLION)]
_Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
_Text: TypeAlias = Annotated[str, Meta(min_length=1)]
_Port: TypeAlias = Annotated[int, Meta(ge=1, le=65_535)]
_PerPeriod: TypeAlias = Annotated[int, Meta(ge=1, le=_MOST_PER_PERIOD)]
_Period: TypeAlias = Annotated[float, Meta(ge=0.001, le=366 * _DAY_S)]
_LeastRatio: TypeAlias = Annotated[
    float, Meta(ge=0.001, le=1, description="never below this part of the full value")
]
_DecreaseRatio: TypeAlias = Annotated[
    float, Meta(ge=0.001, le=0.999, description="what one overload leaves of the value")
]
_IncreaseRatio: TypeAlias = Annotated[
    float, Meta(ge=1e-6, le=1, description="what one success adds, as a part of the full value")
]
_HoldTime: TypeAlias = Annotated[
    float, Meta(ge=0, le=_HOUR_S, description="overloads this soon after a decrease are the same")
]
_ForgetTime: TypeAlias = Annotated[
    float, Meta(ge=0, le=_DAY_S, description="a decrease is forgotten after so long without a call")
]


class RetryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another attempt after one that failed."""

    mode: _Mode = "enforce"
    attempts: Annotated[
        int, Meta(ge=1, le=100, description="attempts in all, the first one included")
    ] = 3
    base_s: Annotated[
        _Time, Meta(description="longest first wait; doubles with each retry; jitter is full")
    ] = 0.05
    throttled_base_s: Annotated[_Time, Meta(description="the same after a 429")] = 1.0
    cap_s: Annotated[_Time, Meta(description="longest wait of all")] = 20.0
    retry_after_max_s: Annotated[
        _LongTime, Meta(description="an answer that asks for a longer wait ends the call at once")
    ] = 120.0
    retry_after_jitter_ratio: Annotated[
        _Share, Meta(description="up to this share is added to the wait that an answer asks for")
    ] = 0.25


class RetryQuotaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the retries of a tenant at an origin may cost, in tokens."""

    mode: _Mode = "enforce"
    most_tokens: Annotated[
        _CountOrNone, Meta(description="tokens when full, as at first; 0: no retries")
    ] = 500
    transient_cost: Annotated[_Count, Meta(description="cost of a retry after a failure")] = 14
    throttled_cost: Annotated[_Count, Meta(description="cost of a retry after a 429")] = 5
    earned_per_success: Annotated[
        _CountOrNone, Meta(description="earned by a call that its first attempt answers well")
    ] = 1
    forget_after_s: Annotated[_LongTime, Meta(description="full again after so long idle")] = 600.0


class BreakerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The circuit breakers: of an origin for all, and of a tenant at it for itself."""

    mode: _Mode = "enforce"
    window_s: Annotated[_Time, Meta(description="calls are counted over this time")] = 30.0
    buckets: Annotated[
        int, Meta(ge=1, le=1000, description="steps in which the window forgets")
    ] = 10
    failure_ratio: Annotated[
        float, Meta(ge=0.001, le=1, description="opens at this share of failures")
    ] = 0.5
    min_calls: Annotated[_Count, Meta(description="... of at least so many calls")] = 20
    no_answer_run: Annotated[
        _Count, Meta(description="opens at so many calls in a row without any HTTP answer")
    ] = 5
    open_s: Annotated[
        _Time, Meta(description="time open at first; doubles while probes fail; half is jitter")
    ] = 5.0
    open_max_s: Annotated[_LongTime, Meta(description="longest time open")] = 300.0
    probes: Annotated[
        int, Meta(ge=1, le=1000, description="calls let through at once to see whether it is well")
    ] = 1
    probe_lease_s: Annotated[
        _Time, Meta(description="a probe that takes longer makes room for another")
    ] = 30.0
    successes_to_close: Annotated[
        int, Meta(ge=1, le=1000, description="probes that must succeed")
    ] = 1
    slow_call_s: Annotated[
        _TimeOrOff | None,
        Meta(description="a success counts as a failure from here on; 0 or not set: never"),
    ] = None


class CooldownConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rest of a credential after a 429."""

    mode: _Mode = "enforce"
    base_s: Annotated[_Time, Meta(description="first rest where the answer names none")] = 1.0
    unhinted_max_s: Annotated[_Time, Meta(description="longest such rest; half is jitter")] = 20.0
    hinted_max_s: Annotated[_LongTime, Meta(description="longest rest that is obeyed")] = 300.0
    jitter_ratio: Annotated[
        _Share, Meta(description="up to this share is added to a rest that was named")
    ] = 0.25


class RateLimitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls in a time."""

    mode: _Mode = "enforce"
    limit: Annotated[_PerPeriod | None, Meta(description="calls per period; not set: no limit")] = (
        None
    )
    period_s: Annotated[_Period, Meta(description="the period")] = 1.0
    burst: Annotated[
        _PerPeriod | None, Meta(description="at once after a pause; not set: as many as limit")
    ] = None
    max_waiting: Annotated[
        _CountOrNone, Meta(description="calls that may wait in line; 0: none waits")
    ] = 1000


class TokenLimitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens of language models in a time."""

    mode: _Mode = "enforce"
    limit: Annotated[
        _PerPeriod | None, Meta(description="tokens per period; not set: no limit")
    ] = None
    period_s: Annotated[_Period, Meta(description="the period")] = 60.0
    burst: Annotated[
        _PerPeriod | None, Meta(description="at once after a pause; not set: as many as limit")
    ] = None
    max_waiting: Annotated[
        _CountOrNone, Meta(description="calls that may wait in line; 0: none waits")
    ] = 1000
    default_max_tokens: Annotated[
        int,
        Meta(ge=1, le=10**9, description="reserved for an answer whose request sets no maximum"),
    ] = 1024


class ByteLimitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes of bodies in a time, those of requests and of answers together."""

    mode: _Mode = "enforce"
    limit: Annotated[_PerPeriod | None, Meta(description="bytes per period; not set: no limit")] = (
        None
    )
    period_s: Annotated[_Period, Meta(description="the period")] = 60.0
    burst: Annotated[
        _PerPeriod | None, Meta(description="at once after a pause; not set: as many as limit")
    ] = None
    max_waiting: Annotated[
        _CountOrNone, Meta(description="calls that may wait in line; 0: none waits")
    ] = 1000


class BulkheadConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many calls are under way at once; streams are counted apart, by the same numbers."""

    mode: _Mode = "enforce"
    max_in_runtime: Annotated[_Count, Meta(description="in all", extra=_RUNTIME)] = 1000
    max_per_tenant: Annotated[_Count, Meta(description="of one tenant", extra=_TENANT)] = 500
    max_per_origin: Annotated[
        _Count, Meta(description="of one tenant and workspace to one origin")
    ] = 256
    adaptive: Annotated[
        bool, Meta(description="feel for less than max_per_origin where the upstream is overloaded")
    ] = False
    adaptive_least_ratio: _LeastRatio = 0.05
    adaptive_decrease_ratio: _DecreaseRatio = 0.7
    adaptive_increase_ratio: _IncreaseRatio = 0.005
    adaptive_hold_s: _HoldTime = 1.0
    adaptive_forget_s: _ForgetTime = 600.0


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line in front of the bulkhead, fair between tenants."""

    max_waiting_per_tenant: Annotated[
        _CountOrNone, Meta(description="calls in line; 0: refused at once")
    ] = 1000
    tenant_weight: Annotated[
        int, Meta(ge=1, le=1000, description="turns of the tenant for each one of others")
    ] = 1
    first_retry_after_s: Annotated[
        float,
        Meta(ge=0.001, le=60, description="told to the refused before the line has ever moved"),
    ] = 1.0


class HeaderLearningConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keeping to the limits that an upstream tells in headers."""

    mode: _Mode = "enforce"
    max_wait_s: Annotated[
        float, Meta(ge=0, le=_DAY_S, description="what would take longer is refused at once")
    ] = 120.0
    least_ratio: _LeastRatio = 0.05
    decrease_ratio: _DecreaseRatio = 0.7
    increase_ratio: _IncreaseRatio = 0.005
    hold_s: _HoldTime = 1.0
    forget_s: _ForgetTime = 600.0


class HedgingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second attempt beside a slow first one, for methods that change nothing."""

    mode: _Mode = "off"
    after_s: Annotated[
        _Time, Meta(description="without response headers for so long; near the origin's p95")
    ] = 1.0
    budget_ratio: Annotated[_Share, Meta(description="hedges as a share of calls")] = 0.05
    budget_max: Annotated[
        float, Meta(ge=0, le=_MILLION, description="hedges that may be saved up")
    ] = 10.0


class AttemptConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attempt of a call."""

    timeout_s: Annotated[
        _TimeOrOff | None,
        Meta(description="from connecting to response headers; 0 or not set: the call's own time"),
    ] = None


class EgressConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where calls may go; cloud metadata is never reached, whatever is written."""

    mode: _Mode = "enforce"
    addresses: Annotated[
        Literal["auto", "public", "any"],
        Meta(
            description="public: those of the Internet alone; auto: public where the "
            "configuration says who may use a tenant, else any"
        ),
    ] = "auto"
    allow_ranges: Annotated[
        tuple[_Text, ...],
        Meta(description="addresses and networks reached all the same, such as 10.1.0.0/16"),
    ] = ()
    deny_ranges: Annotated[
        tuple[_Text, ...], Meta(description="addresses and networks not reached, unless allowed")
    ] = ()
    allow_hosts: Annotated[
        tuple[_Text, ...],
        Meta(description="NAME, *.NAME, address or *; empty: every host", extra=_WORKSPACE),
    ] = ()
    deny_hosts: Annotated[
        tuple[_Text, ...], Meta(description="the same, whatever is allowed", extra=_WORKSPACE)
    ] = ()
    allow_ports: Annotated[
        tuple[_Port, ...], Meta(description="ports; empty: every port", extra=_WORKSPACE)
    ] = ()
    schemes: Annotated[
        tuple[Literal["http", "https"], ...], Meta(description="schemes", extra=_WORKSPACE)
    ] = ("http", "https")


class PoliciesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All policies; as `[defaults]`, and merged for a caller."""

    retry: RetryConfig = RetryConfig()
    retry_quota: Annotated[RetryQuotaConfig, Meta(extra=_TENANT_AT_ORIGIN)] = RetryQuotaConfig()
    breaker: Annotated[BreakerConfig, Meta(extra=_TENANT_AT_ORIGIN)] = BreakerConfig()
    cooldown: CooldownConfig = CooldownConfig()
    rate_limit: RateLimitConfig = RateLimitConfig()
    workspace_rate_limit: Annotated[RateLimitConfig, Meta(extra=_WORKSPACE)] = RateLimitConfig()
    tenant_rate_limit: Annotated[RateLimitConfig, Meta(extra=_TENANT)] = RateLimitConfig()
    origin_rate_limit: Annotated[RateLimitConfig, Meta(extra=_ORIGIN)] = RateLimitConfig()
    token_limit: TokenLimitConfig = TokenLimitConfig()
    workspace_token_limit: Annotated[TokenLimitConfig, Meta(extra=_WORKSPACE)] = TokenLimitConfig()
    tenant_token_limit: Annotated[TokenLimitConfig, Meta(extra=_TENANT)] = TokenLimitConfig()
    origin_token_limit: Annotated[TokenLimitConfig, Meta(extra=_ORIGIN)] = TokenLimitConfig()
    byte_limit: ByteLimitConfig = ByteLimitConfig()
    workspace_byte_limit: Annotated[ByteLimitConfig, Meta(extra=_WORKSPACE)] = ByteLimitConfig()
    tenant_byte_limit: Annotated[ByteLimitConfig, Meta(extra=_TENANT)] = ByteLimitConfig()
    origin_byte_limit: Annotated[ByteLimitConfig, Meta(extra=_ORIGIN)] = ByteLimitConfig()
    bulkhead: BulkheadConfig = BulkheadConfig()
    queue: Annotated[QueueConfig, Meta(extra=_TENANT)] = QueueConfig()
    header_learning: HeaderLearningConfig = HeaderLearningConfig()
    hedging: Annotated[HedgingConfig, Meta(extra=_TENANT_AT_ORIGIN)] = HedgingConfig()
    attempt: AttemptConfig = AttemptConfig()
    egress: EgressConfig = EgressConfig()


class TenantConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written for a tenant, and for its workspaces by name."""

    policies: PolicyTables = {}
    workspaces: dict[str, PolicyTables] = {}
    credentials: Credentials = {}
    workspace_credentials: dict[str, Credentials] = {}
    databases: Databases = {}
    allow_uids: Annotated[
        UserIds, Meta(description="users who may use the tenant over the Unix socket")
    ] = ()
    allow_gids: Annotated[
        UserIds, Meta(description="groups whose members may, by their main or another group")
    ] = ()
    allow_subjects: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(description="client certificates that may, by DNS name or common name"),
    ] = ()
    token_file: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="file with a token a line: who has one may", extra={"file": True}),
    ] = None

    @property
    def has_identity(self) -> bool:
        """Whether it is said who may use it."""
        return bool(
            self.allow_uids or self.allow_gids or self.allow_subjects or self.token_file is not None
        )
