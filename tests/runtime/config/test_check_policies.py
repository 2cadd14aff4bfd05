"""Pairs of numbers that exclude each other only once places are merged."""

from typing import Any

import pytest

from vastar_runtime.config import PoliciesConfig, RuntimeConfig, TenantConfig, merge
from vastar_runtime.config._check_policies import check_policies


def _config(
    defaults: dict[str, Any] | None = None,
    tenant: dict[str, Any] | None = None,
    workspace: dict[str, Any] | None = None,
    origin: dict[str, Any] | None = None,
) -> RuntimeConfig:
    return RuntimeConfig(
        defaults=merge(PoliciesConfig(), [defaults or {}]),
        tenants={"t": TenantConfig(tenant or {}, {"w": workspace or {}})},
        origins={"https://h": origin or {}},
    )


@pytest.mark.parametrize(
    ("config", "key", "wrong"),
    [
        (
            _config(defaults={"breaker": {"open_s": 400.0}}),
            "defaults.breaker.open_s",
            (
                "open_s = 400 of [defaults.breaker] is more than open_max_s = 300 of "
                "[defaults.breaker]"
            ),
        ),
        (
            _config(tenant={"retry": {"cap_s": 0.5}}),
            "tenants.t.retry.cap_s",
            (
                "throttled_base_s = 1 of [defaults.retry] is more than cap_s = 0.5 of "
                "[tenants.t.retry]"
            ),
        ),
        (
            _config(tenant={"retry": {"cap_s": 2.0}}, workspace={"retry": {"base_s": 3.0}}),
            "tenants.t.workspaces.w.retry.base_s",
            (
                "base_s = 3 of [tenants.t.workspaces.w.retry] is more than cap_s = 2 of "
                "[tenants.t.retry]"
            ),
        ),
        (
            _config(origin={"cooldown": {"base_s": 21.0}}),
            'origins."https://h".cooldown.base_s',
            (
                'base_s = 21 of [origins."https://h".cooldown] is more than unhinted_max_s = 20 of '
                "[defaults.cooldown]"
            ),
        ),
        (
            _config(
                tenant={"breaker": {"open_s": 200.0}}, origin={"breaker": {"open_max_s": 100.0}}
            ),
            'origins."https://h".breaker.open_max_s',
            (
                "open_s = 200 of [tenants.t.breaker] is more than open_max_s = 100 of "
                '[origins."https://h".breaker]'
            ),
        ),
        (
            _config(
                workspace={"cooldown": {"unhinted_max_s": 2.0}},
                origin={"cooldown": {"base_s": 3.0}},
            ),
            'origins."https://h".cooldown.base_s',
            (
                'base_s = 3 of [origins."https://h".cooldown] is more than unhinted_max_s = 2 of '
                "[tenants.t.workspaces.w.cooldown]"
            ),
        ),
    ],
)
def test_each_is_told_once_at_the_strongest_place(
    config: RuntimeConfig, key: str, wrong: str
) -> None:
    assert list(check_policies(config)) == [(key, wrong, "lower the one, or raise the other")]


@pytest.mark.parametrize(
    "config",
    [
        RuntimeConfig(),
        _config(tenant={"breaker": {"min_calls": 1}}, origin={"retry": {"attempts": 1}}),
        _config(tenant={"breaker": {"open_s": 300.0}}, origin={"breaker": {"open_max_s": 300.0}}),
        # The origin writes both, so what the tenant writes is never paired with either.
        _config(
            tenant={"breaker": {"open_s": 200.0}},
            origin={"breaker": {"open_s": 1.0, "open_max_s": 100.0}},
        ),
    ],
)
def test_what_makes_sense(config: RuntimeConfig) -> None:
    assert list(check_policies(config)) == []


def test_of_many_origins_the_worst_is_held_against_a_caller() -> None:
    config = RuntimeConfig(
        tenants={name: TenantConfig({"breaker": {"open_s": 200.0}}) for name in ("a", "b")},
        origins={
            f"https://h{most}": {"breaker": {"open_max_s": most}} for most in (50.0, 20.0, 100.0)
        }
        | {"https://both": {"breaker": {"open_s": 1.0, "open_max_s": 10.0}}},
    )
    wrong = [wrong for _, wrong, _ in check_policies(config)]
    assert wrong == [
        (
            f"open_s = 200 of [tenants.{name}.breaker] is more than open_max_s = 20 of "
            '[origins."https://h20.0".breaker]'
        )
        for name in ("a", "b")
    ]
