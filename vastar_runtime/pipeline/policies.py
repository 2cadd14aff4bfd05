"""What holds for one call: the settings of every policy, merged, and the gates of their modes.

Shape: one frozen value for each combination of configured places (defaults, tenant, workspace,
origin), made by whoever reads the configuration and shared by all calls of that combination; a
`PolicyBook` looks it up. Numbers belong to a machine and come from the merge of its own key: the
breaker that all tenants share at an origin is not bent by the settings of one of them. The mode
belongs to the call and comes from the merge of all its places: so a tenant can have a policy off,
or only observed, beside others for whom it is enforced.
"""

from collections.abc import Iterator
from typing import Final, Protocol

import attrs

from vastar_runtime.policy.admission import AdmissionSettings
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.egress import EgressRules
from vastar_runtime.policy.header_learning import HeaderSettings
from vastar_runtime.policy.hedging import HedgeSettings
from vastar_runtime.policy.modes import Gate, Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.retry_quota import QuotaSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings

__all__ = ["NO_LIMITS", "POLICIES", "CallPolicies", "Gates", "LimitSettings", "PolicyBook"]

POLICIES: Final = (
    "egress_guard",
    "bulkhead",
    "retry",
    "retry_quota",
    "hedging",
    "learned_limit",
    "rate_limit",
    "token_limit",
    "byte_limit",
    "cooldown",
    "circuit_breaker",
)
"""Every policy that has a mode, as refusals, metrics and `status` name it."""


@attrs.frozen
class LimitSettings:
    """The configured limits that share one bucket; None = not limited.

    Attributes:
        requests: calls in a time.
        tokens: LLM tokens in a time.
        volume: bytes of bodies in a time.
    """

    requests: RateLimitSettings | None = None
    tokens: TokenLimitSettings | None = None
    volume: RateLimitSettings | None = None


NO_LIMITS: Final = LimitSettings()


@attrs.frozen
class CallPolicies:
    """The settings of every policy for one combination of places; defaults are DEFAULTS.md's.

    Attributes:
        admission: bulkhead and queue.
        breaker: for the breakers of the origin and of the tenant at it.
        limits: of one (tenant, workspace, origin).
        workspace_limits, tenant_limits: of all calls of a workspace, of a tenant.
        origin_limits: of all calls to an origin, whoever makes them.
        egress: where the call may go.
        attempt_timeout_s: for one attempt, from its connection to response headers; None is off.
        has_limits: whether any limit of any level is set.
        has_token_limits, has_byte_limits: whether one of that kind is.
        idle_layers: the layers that have nothing to do for such a call, by name.
    """

    admission: AdmissionSettings = attrs.field(factory=AdmissionSettings)
    retry: RetrySettings = attrs.field(factory=RetrySettings)
    retry_quota: QuotaSettings = attrs.field(factory=QuotaSettings)
    hedging: HedgeSettings = attrs.field(factory=HedgeSettings)
    header_learning: HeaderSettings = attrs.field(factory=HeaderSettings)
    limits: LimitSettings = NO_LIMITS
    workspace_limits: LimitSettings = NO_LIMITS
    tenant_limits: LimitSettings = NO_LIMITS
    origin_limits: LimitSettings = NO_LIMITS
    cooldown: CooldownSettings = attrs.field(factory=CooldownSettings)
    breaker: BreakerSettings = attrs.field(factory=BreakerSettings)
    attempt_timeout_s: float | None = None
    egress: EgressRules = attrs.field(factory=EgressRules)
    has_limits: bool = attrs.field(init=False)
    has_token_limits: bool = attrs.field(init=False)
    has_byte_limits: bool = attrs.field(init=False)
    idle_layers: frozenset[str] = attrs.field(init=False)

    @has_limits.default
    def _any_limit(self) -> bool:
        return any(each != NO_LIMITS for each in self.all_limits())

    @has_token_limits.default
    def _any_token_limit(self) -> bool:
        return any(each.tokens is not None for each in self.all_limits())

    @has_byte_limits.default
    def _any_byte_limit(self) -> bool:
        return any(each.volume is not None for each in self.all_limits())

    @idle_layers.default
    def _off(self) -> frozenset[str]:
        off = Mode.OFF
        idle = {
            "admission": self.admission.mode is off,
            "retry": self.retry.mode is off,
            "hedging": self.hedging.mode is off,
            "learned_limit": self.header_learning.mode is off,
            "rate_limit": not self.has_limits,
            "circuit_breaker": self.breaker.mode is off and self.cooldown.mode is off,
            "attempt_timeout": self.attempt_timeout_s is None,
        }
        return frozenset(name for name, is_idle in idle.items() if is_idle)

    def all_limits(self) -> tuple[LimitSettings, LimitSettings, LimitSettings, LimitSettings]:
        """The limits that a call meets, the narrowest first."""
        return (self.limits, self.workspace_limits, self.tenant_limits, self.origin_limits)


class PolicyBook(Protocol):
    """Where the merged settings are looked up, for calls and for the machines they share."""

    def of(
        self, tenant: str | None = None, workspace: str | None = None, origin: str | None = None
    ) -> CallPolicies:
        """The settings of a place; None leaves that level out. The same object for the same places.

        Args:
            tenant: its name.
            workspace: its name; only with a tenant.
            origin: `scheme://host`, with `:port` where it is not the scheme's own.
        """


class Gates:
    """One gate for each policy and mode: what became of all verdicts, in counts."""

    def __init__(self) -> None:
        self._gates = {mode: {policy: Gate(mode) for policy in POLICIES} for mode in Mode}
        self._enforced = self._gates[Mode.ENFORCE]

    def of(self, policy: str, mode: Mode) -> Gate:
        """The gate that verdicts of `policy` pass through under `mode`."""
        if mode is _ENFORCE:  # nearly always, and hashing a member of an Enum is slow
            return self._enforced[policy]
        return self._gates[mode][policy]

    def __iter__(self) -> Iterator[tuple[str, Gate]]:
        """Each policy with each of its gates."""
        return ((policy, gates[policy]) for policy in POLICIES for gates in self._gates.values())


_ENFORCE: Final = Mode.ENFORCE
