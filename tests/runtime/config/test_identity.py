"""Every key that says who may use a tenant is one of a tenant, and counts as saying so."""

import pytest

from vastar_runtime.config import IDENTITY_KEYS, AuditConfig, TcpConfig, TenantConfig

_VALUES = {
    "allow_uids": (1,),
    "allow_gids": (1,),
    "allow_subjects": ("x",),
    "token_file": "x",
}


@pytest.mark.parametrize("key", IDENTITY_KEYS)
def test_each_key_alone_says_who_may(key: str) -> None:
    assert TenantConfig(**{key: _VALUES[key]}).has_identity  # type: ignore[arg-type]


def test_by_default_nothing_is_said_and_nothing_is_open() -> None:
    assert not TenantConfig(policies={"queue": {"tenant_weight": 2}}).has_identity
    assert not TcpConfig().allow_remote
    assert AuditConfig().path is None
