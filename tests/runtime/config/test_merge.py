"""Later places outrank earlier ones, key by key: held against a model that walks the file."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.policy_files import NAMES, ORIGIN_NAMES, Tree, documents, load_tree
from vastar_runtime.config import PoliciesConfig, RuntimeConfig, TenantConfig, merge, written_for
from vastar_runtime.config._merge import Written, all_written, place_of_key, places_above

_ALL = {"retry": {"attempts": 2, "base_s": 0.2}}
_CONFIG = RuntimeConfig(
    tenants={
        "t": TenantConfig(
            {"retry": {"attempts": 3, "cap_s": 3.0}},
            {"w": {"retry": {"attempts": 4}}, "silent": {}},
        ),
        "only": TenantConfig({}, {"w": {"retry": {"attempts": 7}}}),
    },
    origins={"https://h": {"retry": {"attempts": 5}, "breaker": {"mode": "off"}}, "http://h": {}},
)


def test_the_order_of_places() -> None:
    places = list(written_for(_CONFIG, "t", "w", "https://h"))
    assert [place.kind for place in places] == ["tenants", "workspaces", "origins"]
    merged = merge(merge(PoliciesConfig(), [_ALL]), [place.tables for place in places])
    assert merged.retry.attempts == 5
    assert merged.retry.cap_s == 3.0
    assert merged.retry.base_s == 0.2
    assert merged.breaker.mode == "off"
    assert merged.cooldown == PoliciesConfig().cooldown


@pytest.mark.parametrize(
    ("caller", "kinds"),
    [
        ((None, None, None), []),
        (("t", None, None), ["tenants"]),
        (("t", "silent", None), ["tenants"]),
        (("only", None, None), []),
        (("only", "w", None), ["workspaces"]),
        ((None, "w", None), []),
        (("x", "w", "https://h"), ["origins"]),
        (("x", "w", "http://h"), []),
    ],
)
def test_only_places_that_say_something_count(
    caller: tuple[str | None, str | None, str | None], kinds: list[str]
) -> None:
    assert [place.kind for place in written_for(_CONFIG, *caller)] == kinds


def test_all_written_places_and_what_is_above_them() -> None:
    paths = [place.path for place in all_written(_CONFIG)]
    assert paths == [
        ("tenants", "t"),
        ("tenants", "t", "workspaces", "w"),
        ("tenants", "only", "workspaces", "w"),
        ("origins", "https://h"),
    ]
    above = [[place.path for place in places_above(_CONFIG, p)] for p in all_written(_CONFIG)]
    assert above == [[], [("tenants", "t")], [], []]


def test_what_was_sent_to_a_worker_merges_like_what_was_loaded() -> None:
    """Its lists came as such: a table of a place does not say what its keys are."""
    config = RuntimeConfig(
        tenants={"acme": TenantConfig({"egress": {"allow_hosts": ("a.test", "b.test")}})}
    )
    sent = msgspec.json.decode(msgspec.json.encode(config), type=RuntimeConfig)
    merged = [
        merge(each.defaults, [place.tables for place in written_for(each, "acme", None, None)])
        for each in (config, sent)
    ]
    assert merged[0] == merged[1]
    assert hash(merged[0]) == hash(merged[1])


def test_nothing_written_is_the_very_defaults() -> None:
    defaults = PoliciesConfig()
    assert merge(defaults, []) is defaults


def test_who_decides_a_key() -> None:
    places = [
        Written("tenants", ("tenants", "t"), {"retry": {"attempts": 3, "cap_s": 3.0}}),
        Written("origins", ("origins", "o"), {"retry": {"attempts": 5}}),
    ]
    assert place_of_key(places, "retry", "attempts") == ("origins", "o", "retry")
    assert place_of_key(places, "retry", "cap_s") == ("tenants", "t", "retry")
    assert place_of_key(places, "retry", "base_s") == ("defaults", "retry")


@given(
    tree=documents(),
    tenant=st.none() | NAMES,
    workspace=st.none() | NAMES,
    origin=st.none() | st.sampled_from(ORIGIN_NAMES),
    data=st.data(),
)
def test_each_key_is_what_the_last_place_says(
    *,
    tree: Tree,
    tenant: str | None,
    workspace: str | None,
    origin: str | None,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A file, loaded and merged for any caller, is what overlaying its tables by hand gives."""
    if tree["tenants"] and data.draw(st.booleans()):
        tenant = data.draw(st.sampled_from(sorted(tree["tenants"])))
        known = sorted(tree["tenants"][tenant]["workspaces"])
        workspace = data.draw(st.sampled_from(known)) if known else workspace
    config = load_tree(tree, tmp_path_factory.mktemp("c")).config
    places = written_for(config, tenant, workspace, origin)
    merged = merge(config.defaults, [place.tables for place in places])

    of_tenant = tree["tenants"].get(tenant, {})
    layers: list[dict[str, Any]] = [
        tree["defaults"],
        of_tenant,
        of_tenant.get("workspaces", {}).get(workspace, {}),
        tree["origins"].get(origin, {}),
    ]
    for policy in PoliciesConfig.__struct_fields__:
        table = getattr(merged, policy)
        for key in table.__struct_fields__:
            expected = getattr(getattr(PoliciesConfig(), policy), key)
            for layer in layers:
                expected = layer.get(policy, {}).get(key, expected)
            assert getattr(table, key) == expected, f"{policy}.{key}"
