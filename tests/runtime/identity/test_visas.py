"""Who may name which tenant: users, groups, certificates and tokens, and what a visa forgets."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.sessions import request
from vastar_runtime import audit
from vastar_runtime.audit import AuditLog
from vastar_runtime.calls import Caller
from vastar_runtime.config import RuntimeConfig, TenantConfig
from vastar_runtime.identity.visas import Identity, Visa

OWN = os.geteuid()
STRANGER = Caller(1, OWN + 1, 42, 77, frozenset({77, 78}))
TOKEN = "planted-token-0123456789"


class Audited:
    """What was written to the audit log."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def write(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Audited]:
    seen = Audited()
    log = AuditLog()
    monkeypatch.setattr(log, "write", seen.write)
    before = audit.use(log)
    yield seen
    audit.use(before)


def identity(**tenants: TenantConfig) -> Identity:
    return Identity(RuntimeConfig(tenants=tenants))


def may(visa: Visa, tenant: str, *tokens: str, **fields: object) -> bool:
    headers = [("Authorization", f"Bearer {token}") for token in tokens] or None
    return visa.admits(request(1, tenant_id=tenant, headers=headers, **fields))  # type: ignore[arg-type]


def test_without_rules_whoever_got_in_may_name_any_tenant(audited: Audited) -> None:
    rules = identity(acme=TenantConfig(policies={"queue": {"tenant_weight": 2}}))
    for caller in (Caller(1, OWN), STRANGER, Caller()):
        assert may(rules.visa(caller), "acme")
        assert rules.visa(caller).show("anything")
    assert not audited.lines


def test_with_rules_each_tenant_is_for_whom_it_names_and_the_rest_for_the_own_user(
    audited: Audited,
) -> None:
    rules = identity(
        users=TenantConfig(allow_uids=(OWN + 1,)),
        groups=TenantConfig(allow_gids=(78,)),
        names=TenantConfig(allow_subjects=("Build.Acme.test",)),
        others=TenantConfig(allow_uids=(OWN + 2,)),
    )
    allowed = {
        STRANGER: {"users", "groups"},
        Caller(2, OWN): {"", "unnamed"},
        Caller(3, subjects=frozenset({"build.acme.test"})): {"names"},
        Caller(4): set(),
    }
    tenants = ("users", "groups", "names", "others", "", "unnamed")
    for caller, expected in allowed.items():
        visa = rules.visa(caller)
        for _ in range(2):
            assert {tenant for tenant in tenants if may(visa, tenant)} == expected
    assert {event for event, _ in audited.lines} == {"tenant_refused"}
    assert audited.lines[0][1]["rule"] == "identity:tenant"


def test_the_control_connector_is_for_the_own_user_and_root_whatever_the_tenant() -> None:
    rules = identity(acme=TenantConfig(allow_uids=(OWN + 1,)))
    for uid in (OWN, 0):
        assert may(rules.visa(Caller(1, uid)), "acme", connector_name="vastar")
        assert not may(rules.visa(Caller(1, uid)), "acme")


def test_the_control_connector_gives_a_stranger_no_tenant_s_name(audited: Audited) -> None:
    rules = identity(acme=TenantConfig(allow_uids=(OWN + 1,)))
    for caller in (Caller(1, OWN + 9), Caller(1)):
        for tenant in ("acme", "", "made up"):
            assert not may(rules.visa(caller), tenant, connector_name="vastar")
    assert {event for event, _ in audited.lines} == {"tenant_refused"}


def test_no_token_of_a_request_is_kept(token_file: Path, audited: Audited) -> None:
    visa = identity(acme=TenantConfig(token_file=str(token_file))).visa(Caller(1))
    assert may(visa, "acme", TOKEN)
    assert not may(visa, "acme", "planted-wrong-0123456789")
    assert "planted" not in repr(visa._known)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


def test_a_token_of_a_request_is_for_that_request_alone(token_file: Path, audited: Audited) -> None:
    visa = identity(
        acme=TenantConfig(token_file=str(token_file)), other=TenantConfig(allow_uids=(OWN + 9,))
    ).visa(Caller(1))
    for _ in range(2):
        assert may(visa, "acme", TOKEN)
        assert not may(visa, "acme")
        assert not may(visa, "acme", TOKEN + "x")
        assert not may(visa, "other", TOKEN)
        assert not may(visa, "acme", "x" * 5000)
    assert not visa.admits(request(1, headers=[("authorization", f"Basic {TOKEN}")]))
    assert TOKEN not in repr(audited.lines)


def test_a_token_that_was_shown_is_for_the_connection_until_it_is_withdrawn(
    token_file: Path, audited: Audited
) -> None:
    rules = identity(acme=TenantConfig(token_file=str(token_file)))
    visa, other = rules.visa(Caller(1)), rules.visa(Caller(2))
    assert not may(visa, "acme")
    assert visa.show(TOKEN)
    assert visa.show(TOKEN)
    assert may(visa, "acme")
    assert not may(other, "acme"), "one connection's token is not another's"
    token_file.write_text("another-token-of-acme")
    rules.look()
    assert not may(visa, "acme")
    token_file.chmod(0o644)
    rules.look()
    rules.look()
    assert [event for event, _ in audited.lines].count("token_file_refused") == 1
    assert not visa.show("another-token-of-acme"), "a file that others read admits nobody"


def test_a_stranger_is_who_shows_nothing(token_file: Path) -> None:
    rules = identity(acme=TenantConfig(token_file=str(token_file)))
    visa = rules.visa(Caller(1))
    strange = [visa.is_stranger, rules.visa(STRANGER).is_stranger]
    visa.show(TOKEN)
    strange += [visa.is_stranger, identity().visa(Caller(1)).is_stranger]
    assert strange == [True, False, False, False]


def test_guessing_is_noticed(token_file: Path, audited: Audited) -> None:
    visa = identity(acme=TenantConfig(token_file=str(token_file))).visa(Caller(1))
    for number in range(20):
        assert not visa.is_guessing
        assert not visa.show(f"{number}" if number else None)
    assert visa.is_guessing
    assert [event for event, _ in audited.lines] == ["token_refused"] * 20


def test_a_reload_that_brings_rules_binds_connections_that_are_open() -> None:
    rules = identity()
    visa = rules.visa(STRANGER)
    assert may(visa, "acme")
    rules.configure(RuntimeConfig(tenants={"acme": TenantConfig(allow_uids=(OWN,))}))
    assert not may(visa, "acme")
    rules.configure(RuntimeConfig())
    assert may(visa, "acme")


def test_what_is_remembered_is_bounded(audited: Audited) -> None:
    visa = identity(acme=TenantConfig(allow_uids=(OWN + 1,))).visa(STRANGER)
    for number in range(2000):
        assert not may(visa, f"tenant-{number}", f"token-{number:020d}")
    assert len(visa._known) <= 256
    assert may(visa, "acme")
