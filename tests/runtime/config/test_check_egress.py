"""Hosts and ranges of the egress guard that fit nothing, or are none, are refused."""

from pathlib import Path

import pytest

from vastar_runtime.config import (
    ConfigError,
    PoliciesConfig,
    RuntimeConfig,
    TenantConfig,
    load_config,
    merge,
)
from vastar_runtime.config._check_egress import check_egress


def faults(key: str, *values: str) -> list[tuple[str, str, str]]:
    defaults = merge(PoliciesConfig(), [{"egress": {key: values}}])
    return list(check_egress(RuntimeConfig(defaults=defaults)))


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "api.example.com",
        "*.example.com",
        "*.com",
        "localhost",
        "under_score.test",
        "xn--bcher-kva.test",
        "*.xn--bcher-kva.test",
        "10.0.0.1",
        "::1",
        "2001:db8::1",
    ],
)
@pytest.mark.parametrize("key", ["allow_hosts", "deny_hosts"])
def test_hosts_that_calls_can_have_are_taken(key: str, pattern: str) -> None:
    assert faults(key, pattern) == []


@pytest.mark.parametrize(
    ("pattern", "right"),
    [
        ("API.example.com", "api.example.com"),
        ("*.Example.com", "*.example.com"),
        ("api.example.com.", "api.example.com"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("*.bücher.test", "*.xn--bcher-kva.test"),
        ("0x7f.1", "127.0.0.1"),
        ("010.0.0.1", "8.0.0.1"),
        ("[::1]", "::1"),
        ("0:0::1", "::1"),
        ("::ffff:1.2.3.4", "::ffff:102:304"),
    ],
)
def test_a_host_that_none_can_have_is_told_as_it_has_to_be(pattern: str, right: str) -> None:
    ((key, wrong, words),) = faults("allow_hosts", pattern)
    assert key == "defaults.egress.allow_hosts"
    assert wrong == f'"{pattern}" would never fit a call\'s host'
    assert words == f'write "{right}"'


@pytest.mark.parametrize(
    "pattern",
    [
        "https://api.example.com",
        "api.example.com:443",
        "api.example.com/x",
        "a b.test",
        "user@api.test",
        "api.*.test",
        "*api.test",
        "*.*.test",
        "*.",
        ".",
        "fe80::1%eth0",
        "1.2.3.4.5",
    ],
)
def test_what_is_no_host_is_refused(pattern: str) -> None:
    ((_, wrong, right),) = faults("deny_hosts", pattern)
    assert wrong.endswith(" is no host")
    assert '"*.example.com"' in right


@pytest.mark.parametrize("pattern", ["*.10.0.0.1", "*.::1"])
def test_nothing_is_below_an_address(pattern: str) -> None:
    ((_, wrong, _),) = faults("deny_hosts", pattern)
    assert "below an address" in wrong


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.1.2.3", "fd00::/8", "::1", "0.0.0.0/0", "::/0"])
@pytest.mark.parametrize("key", ["allow_ranges", "deny_ranges"])
def test_ranges_are_networks_and_addresses(key: str, text: str) -> None:
    assert faults(key, text) == []


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("10.1.2.3/8", 'write "10.0.0.0/8"'),
        ("fd00::1/8", 'write "fd00::/8"'),
        ("example.com", "give an address or a network, such as 10.1.0.0/16 or fd00:1::/64"),
        ("10.0.0.0/33", "give an address or a network, such as 10.1.0.0/16 or fd00:1::/64"),
        ("10", "give an address or a network, such as 10.1.0.0/16 or fd00:1::/64"),
    ],
)
def test_a_range_that_is_none_is_refused(text: str, right: str) -> None:
    assert faults("allow_ranges", text) == [
        ("defaults.egress.allow_ranges", f'"{text}" is no network', right)
    ]


def test_every_place_is_looked_at() -> None:
    bad = {"egress": {"allow_ranges": ("x",)}}
    config = RuntimeConfig(
        tenants={"t": TenantConfig(bad, {"w": bad, "v": {"retry": {"attempts": 2}}})},
        origins={"https://h": bad},
    )
    assert [key for key, _, _ in check_egress(config)] == [
        "tenants.t.egress.allow_ranges",
        "tenants.t.workspaces.w.egress.allow_ranges",
        'origins."https://h".egress.allow_ranges',
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '[tenants.a.egress]\nallow_hosts = ["A.test"]\n',
            'tenants.a.egress.allow_hosts: "A.test" would never fit a call\'s host; write "a.test"',
        ),
        (
            '[egress]\nmode = "off"\n',
            "egress: it means nothing here; write it in [defaults.egress]",
        ),
        ("[defaults.egress]\nallow_ports = [0]\n", "give a list of whole numbers from 1 to 65535"),
        ('[defaults.egress]\nschemes = ["ftp"]\n', 'give a list of "http", "https"'),
        ('[defaults.egress]\naddresses = "publik"\n', 'did you mean "public"?'),
    ],
)
def test_a_file_with_a_fault_is_refused(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "vastar.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file=str(file), environ={})
    assert told in str(caught.value)
