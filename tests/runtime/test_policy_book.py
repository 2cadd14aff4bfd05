"""From a configuration to the settings of each call: right, shared, and bounded."""

from typing import Any

import attrs
import msgspec.inspect as mi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.policy_files import (
    LISTED,
    NAMES,
    ORIGIN_NAMES,
    Tree,
    documents,
    load_tree,
    values_of,
)
from vastar_runtime import policy_book
from vastar_runtime.config import PoliciesConfig, RuntimeConfig, TenantConfig, merge, written_for
from vastar_runtime.config._expect import plain
from vastar_runtime.config._schema import policy_leaves
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.policy_book import PolicyBook, egress_changed

_LEAVES = {
    (policy, key): leaf.type_
    for policy, leaves in policy_leaves("defaults").items()
    for key, leaf in leaves.items()
}
_LIMITS = {"rate_limit": "limits"} | {
    f"{of}_rate_limit": f"{of}_limits" for of in ("workspace", "tenant", "origin")
}
_FIELD_OF = {
    **_LIMITS,
    **{name.replace("rate", "token"): field for name, field in _LIMITS.items()},
    **{name.replace("rate", "byte"): field for name, field in _LIMITS.items()},
    "bulkhead": "admission",
    "queue": "admission",
    "attempt": "attempt_timeout_s",
}


def _of_defaults(tables: Tree) -> CallPolicies:
    return PolicyBook(RuntimeConfig(defaults=merge(PoliciesConfig(), [tables]))).of()


def test_the_defaults_are_those_of_the_policy_room() -> None:
    assert PolicyBook(RuntimeConfig()).of() == CallPolicies()


def test_the_defaults_of_a_limit_are_those_of_the_policy_room() -> None:
    policies = _of_defaults({"rate_limit": {"limit": 7}, "token_limit": {"limit": 7}})
    requests, tokens = policies.limits.requests, policies.limits.tokens
    assert requests is not None
    assert tokens is not None
    assert requests == type(requests)(limit=7, scope=Scope.CREDENTIAL)
    assert tokens == attrs.evolve(
        tokens.per_minute(7), rate=attrs.evolve(tokens.per_minute(7).rate, scope=Scope.CREDENTIAL)
    )


@pytest.mark.parametrize(("policy", "key"), _LEAVES)
def test_each_key_sets_one_thing_over_its_whole_range(policy: str, key: str) -> None:
    """The ends of a range build, and change the policy that they are for and no other."""
    # Where a number means nothing alone, what gives it a meaning stands beside it.
    needed: dict[str, Any] = {"limit": 5} if policy.endswith("_limit") else {}
    if key.startswith("adaptive_"):
        needed["adaptive"] = True
    before = _of_defaults({policy: needed})
    values: list[Any]
    match plain(_LEAVES[policy, key]):
        case mi.LiteralType(values=words):
            values = list(words)
        case mi.BoolType():
            values = [True, False]
        case mi.VarTupleType(item_type=item):
            values = [(), tuple(LISTED[key][:2]) if key in LISTED else (_one_of(item),)]
        case kind:
            assert isinstance(kind, mi.IntType | mi.FloatType)
            values = [kind.ge, kind.le]
    changed: set[str] = set()
    for value in values:
        after = _of_defaults({policy: {**needed, key: value}})
        fields = (a.name for a in attrs.fields(CallPolicies) if a.init)
        changed |= {name for name in fields if getattr(before, name) != getattr(after, name)}
    assert changed == {_FIELD_OF.get(policy, policy)}


def _one_of(item: mi.Type) -> Any:
    match plain(item):
        case mi.LiteralType(values=words):
            return words[0]
        case kind:
            assert isinstance(kind, mi.IntType)
            return kind.le


def test_the_rules_of_egress_arrive_under_their_own_names() -> None:
    written: Tree = {key: tuple(LISTED[key]) for key in LISTED}
    written |= {"mode": "observe", "allow_ports": (1, 2), "schemes": ("https",)}
    settings = _of_defaults({"egress": written}).egress.settings
    assert {name: getattr(settings, name) for name in written} == written | {"mode": Mode.OBSERVE}
    assert not settings.public_only


def test_addresses_are_public_where_it_is_said_or_somebody_may_use_a_tenant() -> None:
    strangers = {"t": TenantConfig(allow_uids=(7,)), "u": TenantConfig({"retry": {"attempts": 2}})}
    alone = {"u": strangers["u"]}
    for addresses, tenants, expected in (
        ("auto", {}, False),
        ("auto", alone, False),
        ("auto", strangers, True),
        ("public", {}, True),
        ("any", strangers, False),
    ):
        defaults = merge(PoliciesConfig(), [{"egress": {"addresses": addresses}}])
        book = PolicyBook(RuntimeConfig(defaults=defaults, tenants=tenants))
        assert book.of("t").egress.settings.public_only is expected
        assert book.of("u", "w").egress.settings.public_only is expected


@given(data=st.data())
def test_values_arrive_under_their_own_names(data: st.DataObject) -> None:
    """Most settings are called what their key is called: no two are swapped."""
    policy = data.draw(
        st.sampled_from(["retry", "retry_quota", "breaker", "cooldown", "hedging", "queue"])
    )
    keys = {key: type_ for (of, key), type_ in _LEAVES.items() if of == policy}
    written = data.draw(st.fixed_dictionaries({k: values_of(t) for k, t in keys.items()}))
    settings: Any = getattr(_of_defaults({policy: written}), _FIELD_OF.get(policy, policy))
    found = {**_flat(settings), "slow_call_s": getattr(settings, "slow_call_s", None) or 0.0}
    for key, value in written.items():
        assert found[key] == (Mode(value) if key == "mode" else value), key


def _flat(settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in attrs.fields(type(settings)):
        value = getattr(settings, field.name)
        found |= _flat(value) if attrs.has(type(value)) else {field.name: value}
    return found


@pytest.mark.parametrize("of", ["bulkhead", "header_learning"])
def test_the_numbers_of_feeling_for_a_limit(of: str) -> None:
    prefix = "adaptive_" if of == "bulkhead" else ""
    numbers = {
        "least_ratio": 0.1,
        "decrease_ratio": 0.2,
        "increase_ratio": 0.3,
        "hold_s": 4.0,
        "forget_s": 5.0,
    }
    written: Tree = {of: {prefix + key: value for key, value in numbers.items()}}
    off = _of_defaults(written)
    if prefix:
        assert off.admission.concurrency.adaptive is None
        written[of]["adaptive"] = True
    policies = _of_defaults(written)
    aimd = policies.admission.concurrency.adaptive if prefix else policies.header_learning.aimd
    assert aimd is not None
    assert attrs.asdict(aimd) == numbers


def test_each_limit_says_whose_it_is_and_counts_what_it_is_for() -> None:
    keys = {"limit": 9, "period_s": 8.0, "burst": 7, "max_waiting": 6, "mode": "observe"}
    tables = {
        f"{of}{what}_limit": keys
        for of in ("", "workspace_", "tenant_", "origin_")
        for what in ("rate", "token", "byte")
    }
    tables["token_limit"] = {**keys, "default_max_tokens": 5}
    policies = _of_defaults(tables)
    scopes = (Scope.CREDENTIAL, Scope.WORKSPACE, Scope.TENANT, Scope.ORIGIN)
    for limits, scope in zip(policies.all_limits(), scopes, strict=True):
        assert limits.requests is not None
        assert limits.tokens is not None
        assert limits.volume is not None
        for rate, policy in (
            (limits.requests, "rate_limit"),
            (limits.tokens.rate, "token_limit"),
            (limits.volume, "byte_limit"),
        ):
            assert (rate.limit, rate.period_s, rate.burst, rate.max_waiting) == (9, 8.0, 7, 6)
            assert (rate.scope, rate.policy, rate.mode) == (scope, policy, Mode.OBSERVE)
    assert policies.limits.tokens is not None
    assert policies.limits.tokens.default_max_tokens == 5


def test_a_limit_without_its_number_is_none() -> None:
    assert _of_defaults({"rate_limit": {"burst": 3}}) == CallPolicies()


def test_0_turns_a_time_off_that_would_be_inherited() -> None:
    config = RuntimeConfig(
        defaults=merge(
            PoliciesConfig(), [{"attempt": {"timeout_s": 3.0}, "breaker": {"slow_call_s": 2.0}}]
        ),
        tenants={
            "t": TenantConfig({"attempt": {"timeout_s": 0.0}, "breaker": {"slow_call_s": 0.0}})
        },
    )
    book = PolicyBook(config)
    assert (book.of().attempt_timeout_s, book.of().breaker.slow_call_s) == (3.0, 2.0)
    assert (book.of("t").attempt_timeout_s, book.of("t").breaker.slow_call_s) == (None, None)


_CONFIG = RuntimeConfig(
    tenants={
        "t": TenantConfig({"retry": {"attempts": 3}}, {"w": {"retry": {"attempts": 4}}, "": {}}),
        "same": TenantConfig({"retry": {"attempts": 3}}),
        "only": TenantConfig({}, {"w": {"retry": {"attempts": 7}}}),
    },
    origins={"https://h": {"breaker": {"min_calls": 1}}, "https://silent": {}},
)


@pytest.mark.parametrize(
    ("caller", "attempts", "min_calls"),
    [
        ((), 3, 20),
        (("t",), 3, 20),
        (("t", "w"), 4, 20),
        (("t", "w", "https://h"), 4, 1),
        (("t", None, "https://h"), 3, 1),
        (("only", "w"), 7, 20),
        (("only", "x"), 3, 20),
        ((None, "w"), 3, 20),
        ((None, None, "https://h"), 3, 1),
    ],
)
def test_the_places_of_a_caller(caller: tuple[Any, ...], attempts: int, min_calls: int) -> None:
    policies = PolicyBook(_CONFIG).of(*caller)
    assert policies.retry.attempts == attempts
    assert policies.breaker.min_calls == min_calls


def test_names_from_outside_share_one_object_and_take_no_memory() -> None:
    book = PolicyBook(_CONFIG)
    everybody = book.of()
    for number in range(1000):
        assert book.of(f"t{number}", "w", f"https://h{number}") is everybody
        assert book.of("t", f"w{number}", "https://silent") is book.of("t")
    assert len(book._merged) == 2
    plain_book = PolicyBook(RuntimeConfig())
    assert plain_book.of("t", "w", "https://h") is plain_book.of()


def test_equal_settings_are_one_object_wherever_they_are_written() -> None:
    book = PolicyBook(_CONFIG)
    assert book.of("same") is book.of("t")
    assert book.of("t", None, "https://h").retry is book.of("t").retry
    assert book.of("t", None, "https://h").breaker is book.of(None, None, "https://h").breaker


def test_combinations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_book, "MAX_COMBINATIONS", 3)
    config = RuntimeConfig(
        tenants={f"t{n}": TenantConfig({"retry": {"attempts": n + 1}}) for n in range(20)}
    )
    book = PolicyBook(config)
    for _ in range(2):
        for number in range(20):
            assert book.of(f"t{number}").retry.attempts == number + 1
            assert len(book._merged) <= 3
    assert len(book._shared) < 25, "what no combination needs is forgotten with them"


@given(
    tree=documents(),
    tenant=st.none() | NAMES,
    workspace=st.none() | NAMES,
    origin=st.none() | st.sampled_from(ORIGIN_NAMES),
)
def test_a_caller_gets_what_check_config_prints_for_it(
    tree: Tree,
    tenant: str | None,
    workspace: str | None,
    origin: str | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The look-up by written places gives what merging for the caller itself gives, kept or not."""
    config = load_tree(tree, tmp_path_factory.mktemp("c")).config
    book = PolicyBook(config)
    for name in (*config.tenants, tenant):
        workspaces = config.tenants[name].workspaces if name in config.tenants else ()
        for space in (*workspaces, workspace):
            places = written_for(config, name, space, origin)
            merged = merge(config.defaults, [place.tables for place in places])
            found = book.of(name, space, origin)
            assert found == PolicyBook(RuntimeConfig(defaults=merged)).of()
            assert book.of(name, space, origin) is found


def test_egress_has_changed_where_calls_may_go_elsewhere() -> None:
    plain = RuntimeConfig()
    retries = RuntimeConfig(tenants={"t": TenantConfig({"retry": {"attempts": 2}})})
    rules = RuntimeConfig(origins={"https://h": {"egress": {"mode": "off"}}})
    strangers = RuntimeConfig(tenants={"t": TenantConfig(allow_uids=(7,))})
    assert not egress_changed(plain, retries)
    assert egress_changed(plain, rules)
    assert egress_changed(rules, plain)
    assert egress_changed(plain, strangers)
    assert not egress_changed(strangers, strangers)
