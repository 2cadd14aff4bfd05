"""Which key may stand where: the rules that are promised, key by key."""

import pytest

from vastar_runtime.config._policies import EVERYWHERE, PoliciesConfig
from vastar_runtime.config._schema import Names, Table, leaf_at, policy_leaves, schema

_PLACES_OF_TABLES = {
    "retry": "dtwo",
    "retry_quota": "dto",
    "breaker": "dto",
    "cooldown": "dtwo",
    "rate_limit": "dtwo",
    "workspace_rate_limit": "dtw",
    "tenant_rate_limit": "dt",
    "origin_rate_limit": "do",
    "token_limit": "dtwo",
    "workspace_token_limit": "dtw",
    "tenant_token_limit": "dt",
    "origin_token_limit": "do",
    "byte_limit": "dtwo",
    "workspace_byte_limit": "dtw",
    "tenant_byte_limit": "dt",
    "origin_byte_limit": "do",
    "bulkhead": "dtwo",
    "queue": "dt",
    "header_learning": "dtwo",
    "hedging": "dto",
    "attempt": "dtwo",
    "egress": "dtwo",
}
_PLACES_OF_KEYS = {("bulkhead", "max_in_runtime"): "d", ("bulkhead", "max_per_tenant"): "dt"}
# What an origin says of itself cannot be about names.
_PLACES_OF_KEYS |= {
    ("egress", key): "dtw" for key in ("allow_hosts", "deny_hosts", "allow_ports", "schemes")
}


def test_every_key_may_stand_where_its_machine_is_and_modes_everywhere() -> None:
    assert set(_PLACES_OF_TABLES) == set(PoliciesConfig.__struct_fields__)
    for policy, of_table in _PLACES_OF_TABLES.items():
        for key in getattr(PoliciesConfig(), policy).__struct_fields__:
            allowed = _PLACES_OF_KEYS.get((policy, key), of_table)
            if key == "mode":
                allowed = "dtwo"
            for place in EVERYWHERE:
                is_there = key in policy_leaves(place).get(policy, ())
                assert is_there is (place[0] in allowed), f"{policy}.{key} in {place}"


def test_every_policy_but_two_has_a_mode() -> None:
    """A queue is its bulkhead's; an attempt's timeout is off where it is not set."""
    without = {policy for policy, keys in policy_leaves("defaults").items() if "mode" not in keys}
    assert without == {"queue", "attempt"}


def test_keys_that_stand_elsewhere_say_where() -> None:
    origins = schema().nodes["origins"]
    assert isinstance(origins, Names)
    assert origins.inner.elsewhere["queue"] == "[defaults.queue] or [tenants.NAME.queue]"
    bulkhead = origins.inner.nodes["bulkhead"]
    assert isinstance(bulkhead, Table)
    assert bulkhead.elsewhere["max_in_runtime"] == "[defaults.bulkhead]"
    assert schema().elsewhere["retry"] == "[defaults.retry]"


def test_a_key_without_names_is_found() -> None:
    assert leaf_at(("server", "use_tcp")).annotation
    with pytest.raises(KeyError):
        leaf_at(("server", "x"))
