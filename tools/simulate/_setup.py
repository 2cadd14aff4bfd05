"""What a run is made of: tenants, hosts, and a configuration, drawn from the seed.

Shape: a handful of *features*, each drawn with its own chance and each a small change to the
defaults. So most runs have a few policies under strain and the rest out of the way, which finds
more than all of them at once; some runs have them all.
"""

import random
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import attrs
from msgspec.structs import replace

from tools.chance import stream
from vastar_runtime.config import (
    HttpConfig,
    PoliciesConfig,
    PolicyTables,
    PoolConfig,
    ProxyConfig,
    RuntimeConfig,
    TenantConfig,
)

__all__ = ["FEATURES", "Setup", "Tenant", "draw_setup", "redraw"]

_NAMES: Final = ("acme", "bolt", "crux", "dune")
_HOSTS: Final = ("one.sim", "two.sim", "three.sim")
_WORKSPACES: Final = ("", "red", "blue")


@attrs.frozen
class Tenant:
    """Who calls.

    Attributes:
        share: of the calls, in comparison with the others.
    """

    name: str
    workspaces: tuple[str, ...]
    share: int


@attrs.frozen
class Setup:
    """What a run is made of.

    Attributes:
        features: which parts of the configuration are not the defaults.
        has_llm: callers send LLM requests.
    """

    features: tuple[str, ...]
    tenants: tuple[Tenant, ...]
    hosts: tuple[str, ...]
    config: RuntimeConfig

    @property
    def has_llm(self) -> bool:
        """Whether callers send LLM requests."""
        return "tokens" in self.features


Feature: TypeAlias = Callable[[random.Random, PoliciesConfig], PoliciesConfig]


def _limits(chance: random.Random, base: PoliciesConfig) -> PoliciesConfig:
    """Rate limits, of one to four scopes."""
    names = ("rate_limit", "workspace_rate_limit", "tenant_rate_limit", "origin_rate_limit")
    changed = {}
    for name in chance.sample(names, chance.randrange(1, 4)):
        changed[name] = replace(
            base.rate_limit,
            limit=chance.choice((2, 5, 20)),
            period_s=chance.choice((0.5, 1.0, 5.0)),
            burst=chance.choice((None, 1, 3, 8)),
            max_waiting=chance.choice((0, 3, 1000)),
        )
    return replace(base, **changed)


def _tokens(chance: random.Random, base: PoliciesConfig) -> PoliciesConfig:
    """A limit on LLM tokens, of one or two scopes."""
    names = ("token_limit", "workspace_token_limit", "tenant_token_limit", "origin_token_limit")
    changed = {}
    for name in chance.sample(names, chance.randrange(1, 3)):
        changed[name] = replace(
            base.token_limit,
            limit=chance.choice((300, 1500)),
            period_s=chance.choice((2.0, 20.0)),
            max_waiting=chance.choice((0, 2, 1000)),
            default_max_tokens=chance.choice((64, 256)),
        )
    return replace(base, **changed)


def _crowded(chance: random.Random, base: PoliciesConfig) -> PoliciesConfig:
    """Few places in the runtime: tenants wait for their turns."""
    return replace(
        base,
        bulkhead=replace(base.bulkhead, max_in_runtime=chance.choice((1, 2, 4))),
        queue=replace(base.queue, max_waiting_per_tenant=chance.choice((2, 10, 1000))),
    )


def _narrow(chance: random.Random, base: PoliciesConfig) -> PoliciesConfig:
    """Few places per tenant and origin."""
    return replace(
        base,
        bulkhead=replace(
            base.bulkhead,
            max_per_tenant=chance.choice((2, 4)),
            max_per_origin=chance.choice((1, 2, 3)),
            adaptive=chance.random() < 0.5,  # noqa: PLR2004 - a share
            adaptive_hold_s=0.1,
        ),
        queue=replace(base.queue, max_waiting_per_tenant=chance.choice((0, 3, 1000))),
    )


def _touchy(chance: random.Random, base: PoliciesConfig) -> PoliciesConfig:
    """Breakers that open early and close soon."""
    return replace(
        base,
        breaker=replace(
            base.breaker,
            window_s=chance.choice((5.0, 30.0)),
            min_calls=chance.choice((2, 5)),
            no_answer_run=chance.choice((2, 5)),
            open_s=chance.choice((0.5, 2.0)),
            open_max_s=chance.choice((2.0, 20.0)),
            probe_lease_s=chance.choice((0.5, 5.0)),
            successes_to_close=chance.choice((1, 2)),
            slow_call_s=chance.choice((None, 2.0)),
        ),
    )


def _hasty(chance: random.Random, base: PoliciesConfig) -> PoliciesConfig:
    """A limit on attempts."""
    timeout_s = chance.choice((0.2, 1.0))
    return replace(base, attempt=replace(base.attempt, timeout_s=timeout_s))


def _stubborn(chance: random.Random, base: PoliciesConfig) -> PoliciesConfig:
    """Other numbers of attempts, and small purses for them."""
    return replace(
        base,
        retry=replace(
            base.retry,
            attempts=chance.choice((1, 2, 6)),
            base_s=chance.choice((0.01, 0.3)),
            retry_after_max_s=chance.choice((1.5, 120.0)),
        ),
        retry_quota=replace(base.retry_quota, most_tokens=chance.choice((0, 30, 100))),
    )


def _hedged(chance: random.Random, base: PoliciesConfig) -> PoliciesConfig:
    """Second attempts beside slow ones."""
    after_s, ratio = chance.choice((0.03, 0.5)), chance.choice((0.2, 1.0))
    return replace(
        base,
        hedging=replace(base.hedging, mode="enforce", after_s=after_s, budget_ratio=ratio),
    )


def _lenient(chance: random.Random, base: PoliciesConfig) -> PoliciesConfig:
    """Some policies off, or only observed."""
    changed = {}
    for name in chance.sample(_MODED, 3):
        mode = chance.choice(("observe", "off"))
        changed[name] = replace(getattr(base, name), mode=mode)
    return replace(base, **changed)


_MODED: Final = (
    "retry", "retry_quota", "breaker", "cooldown", "rate_limit", "tenant_rate_limit",
    "token_limit", "bulkhead", "header_learning", "hedging",
)  # fmt: skip

FEATURES: Final[Mapping[str, tuple[float, Feature]]] = {
    "limits": (0.35, _limits),
    "tokens": (0.25, _tokens),
    "crowded": (0.3, _crowded),
    "narrow": (0.2, _narrow),
    "touchy": (0.5, _touchy),
    "hasty": (0.3, _hasty),
    "stubborn": (0.4, _stubborn),
    "hedged": (0.2, _hedged),
    "lenient": (0.15, _lenient),
}
"""Each with its chance, and what it changes; the order counts, as each sees the ones before."""


def draw_setup(seed: int) -> Setup:
    """The setup of a seed."""
    chance = stream(seed, "setup")
    tenants = tuple(
        Tenant(
            name,
            tuple(chance.sample(_WORKSPACES, chance.randrange(1, 3))),
            chance.choice((1, 1, 3, 10)),
        )
        for name in _NAMES[: chance.randrange(1, len(_NAMES) + 1)]
    )
    hosts = _HOSTS[: chance.randrange(1, len(_HOSTS) + 1)]
    pool = PoolConfig(
        max_connections_per_key=chance.choice((2, 256, 256)),
        max_connections=chance.choice((6, 1000, 1000)),
        idle_timeout_s=chance.choice((0.5, 30.0)),
    )
    base = RuntimeConfig(
        http=HttpConfig(connect_timeout_s=chance.choice((0.5, 5.0)), pool=pool),
        proxy=ProxyConfig(use_environment=False),
    )
    return redraw(chance, Setup((), tenants, hosts, base))


def redraw(chance: random.Random, setup: Setup) -> Setup:
    """The same callers and hosts under other policies: what a reload brings."""
    defaults = PoliciesConfig()
    features = []
    for name, (share, change) in FEATURES.items():
        if chance.random() < share:
            features.append(name)
            defaults = change(chance, defaults)
    config = replace(
        setup.config,
        defaults=defaults,
        tenants=_tenant_tables(chance, setup.tenants),
        origins=_origin_tables(chance, setup.hosts),
    )
    return attrs.evolve(setup, features=tuple(features), config=config)


def _tenant_tables(chance: random.Random, tenants: tuple[Tenant, ...]) -> dict[str, TenantConfig]:
    """Some tenants have numbers of their own."""
    tables = {}
    for tenant in tenants:
        if chance.random() < 0.3:  # noqa: PLR2004 - a share
            policies: PolicyTables = chance.choice(
                (
                    {"retry": {"attempts": 2}},
                    {"queue": {"tenant_weight": 3}},
                    {"breaker": {"mode": "off"}},
                    {"bulkhead": {"max_per_tenant": 3}},
                )
            )
            tables[tenant.name] = TenantConfig(policies, {})
    return tables


def _origin_tables(chance: random.Random, hosts: tuple[str, ...]) -> dict[str, PolicyTables]:
    """Some origins have numbers of their own."""
    tables: dict[str, PolicyTables] = {}
    for host in hosts:
        if chance.random() < 0.2:  # noqa: PLR2004
            tables[f"http://{host}"] = chance.choice(
                (
                    {"retry": {"attempts": 4}},
                    {"attempt": {"timeout_s": 0.5}},
                    {"breaker": {"open_s": 1.0}},
                    {"retry_quota": {"most_tokens": 60}},
                )
            )
    return tables
