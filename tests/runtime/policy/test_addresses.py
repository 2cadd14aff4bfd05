"""Addresses: read as the standard library reads them, and judged at most as kindly."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vastar_runtime.policy.addresses import (
    inside_rule,
    is_metadata,
    parse_address,
    parse_range,
    within,
)

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
PRIVATE = 0x0A00_0001
MAPPED = 0xFFFF << 32


def number_of(text: str) -> int:
    number = parse_address(text)
    assert number is not None
    return number


def rule_of(text: str) -> str | None:
    return inside_rule(number_of(text))


# --- reading --------------------------------------------------------------------------------------


@given(V4)
def test_ipv4_is_read_as_its_mapped_form(address: IPv4Address) -> None:
    assert parse_address(str(address)) == MAPPED | int(address)


@given(V6)
def test_ipv6_is_read_in_all_its_forms(address: IPv6Address) -> None:
    last = IPv4Address(int(address) & 0xFFFF_FFFF)
    dotted = f"{address.exploded.rpartition(':')[0].rpartition(':')[0]}:{last}"
    for text in (str(address), address.exploded, str(address).upper(), dotted, f"{address}%eth0"):
        assert parse_address(text) == int(address), text


@given(st.text(alphabet="0123456789abcfx.:%/", max_size=24))
@example("1.2.3.4")
@example("::1.2.3.4")
@example("1::")
@example("")
def test_what_the_standard_library_does_not_read_is_not_read(text: str) -> None:
    try:
        expected = ipaddress.ip_address(text.partition("%")[0] if ":" in text else text)
    except ValueError:
        assert parse_address(text) is None
    else:
        assert parse_address(text) is not None
        assert str(expected)


@pytest.mark.parametrize(
    "text",
    [
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "1.2.3.04",
        "0x7f.0.0.1",
        "1.2.3.٤",
        "1.2.3.",
        "::1::",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7::8",
        "12345::",
        "::g",
        "::1.2.3.400",
        ":1:2:3:4:5:6:7",
        "localhost",
        "1.2.3.4%eth0",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None


@given(st.one_of(V4, V6), st.integers(0, 128))
def test_ranges_are_those_of_the_standard_library(
    address: IPv4Address | IPv6Address, length: int
) -> None:
    length = min(length, address.max_prefixlen)
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    first, last = number_of(str(network[0])), number_of(str(network[-1]))
    assert parse_range(f"{address}/{length}") == (first, last)
    assert parse_range(str(address)) == (number_of(str(address)),) * 2


@pytest.mark.parametrize("text", ["", "x/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1"])
def test_what_is_no_range(text: str) -> None:
    assert parse_range(text) is None


# --- judging --------------------------------------------------------------------------------------

# Public by the standard library (by some of its releases), and not for a guard.
NOT_FOR_US = [
    *map(
        ipaddress.ip_network,
        (
            *("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4"),
            *("64:ff9b:1::/48", "2001::/23", "2002::/16", "3fff::/20"),
        ),
    )
]
UNICAST = ipaddress.ip_network("2000::/3")


def strictly_public(address: IPv4Address | IPv6Address) -> bool:
    """By the standard library and its like."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return strictly_public(address.ipv4_mapped)
    return address.is_global and not (
        address.is_multicast
        or any(address in network for network in NOT_FOR_US if network.version == address.version)
        or (isinstance(address, IPv6Address) and address not in UNICAST)
    )


def special_addresses() -> st.SearchStrategy[IPv4Address | IPv6Address]:
    """Of the networks that rules are about, and around their ends."""
    texts = (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "203.0.113.0/24", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0/96", "2001:db8::/32", "fc00::/7", "fe80::/10", "fec0::/10"),
        *map(str, NOT_FOR_US),
    )
    return st.sampled_from(texts).map(ipaddress.ip_network).flatmap(_in_and_around)


def _in_and_around(
    network: "ipaddress.IPv4Network | ipaddress.IPv6Network",
) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    first, last = int(network[0]), int(network[-1])
    most = (1 << network.max_prefixlen) - 1
    make = IPv4Address if network.version == 4 else IPv6Address
    ends = sorted({first, last, max(first - 1, 0), min(last + 1, most)})
    return st.one_of(st.sampled_from(ends), st.integers(first, last)).map(make)


@given(st.one_of(V4, V6, special_addresses()))
def test_public_is_what_the_standard_library_calls_global_and_no_more(
    address: IPv4Address | IPv6Address,
) -> None:
    is_inside = rule_of(str(address)) is not None
    if is_nat64(address) or is_isatap(address):
        return  # by what they lead to: see below
    assert is_inside is not strictly_public(address)


def is_nat64(address: IPv4Address | IPv6Address) -> bool:
    return address.version == 6 and address in ipaddress.ip_network("64:ff9b::/96")


def is_isatap(address: IPv4Address | IPv6Address) -> bool:
    return address.version == 6 and int(address) >> 32 & 0xFCFF_FFFF == 0x5EFE


WRAPPINGS = {
    "nat64": lambda v4: (0x64_FF9B << 96) | v4,
    "6to4": lambda v4: (0x2002 << 112) | v4 << 80 | 1,
    "teredo": lambda v4: (0x2001_0000 << 96) | (0x0808_0808 << 64) | (v4 ^ 0xFFFF_FFFF),
    "isatap": lambda v4: (0x2606_4700 << 96) | (0x5EFE << 32) | v4,
    "embedded": lambda v4: (0xFFFF << 48) | v4,
}


@pytest.mark.parametrize("way", WRAPPINGS)
@given(inner=V4)
@example(inner=IPv4Address("10.0.0.1"))
@example(inner=IPv4Address("8.8.8.8"))
def test_what_leads_to_ipv4_is_judged_by_it(way: str, inner: IPv4Address) -> None:
    outer = WRAPPINGS[way](int(inner))
    if not strictly_public(inner):
        assert inside_rule(outer) == f"{way}:{rule_of(str(inner))}"
    elif way in {"nat64", "isatap"}:
        assert inside_rule(outer) is None
    else:
        assert inside_rule(outer) is not None, "a tunnel is no part of the Internet"


@given(V4)
def test_a_mapped_address_is_the_address(address: IPv4Address) -> None:
    assert rule_of(f"::ffff:{address}") == rule_of(str(address))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("8.8.8.8", None),
        ("2606:4700::1111", None),
        ("64:ff9b::8.8.8.8", None),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.255.255.255", "private"),
        ("11.0.0.0", None),
        ("100.64.0.1", "cgnat"),
        ("100.128.0.0", None),
        ("127.1.2.3", "loopback"),
        ("169.254.1.1", "link_local"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", None),
        ("192.0.2.9", "documentation"),
        ("192.88.99.1", "6to4"),
        ("192.168.0.1", "private"),
        ("198.19.0.1", "benchmarking"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::2", "embedded:unspecified"),
        ("::127.0.0.1", "embedded:loopback"),
        ("::8.8.8.8", "reserved"),
        ("64:ff9b:1::1", "nat64:unspecified"),
        ("64:ff9b:1:808:8:800:808:808", "nat64"),
        ("2001::1", "teredo:reserved"),
        ("2001:2::1", "reserved"),
        ("2001:db8::1", "documentation"),
        ("2002:808:808::1", "6to4"),
        ("3fff::1", "documentation"),
        ("4000::1", "reserved"),
        ("fd00::1", "private"),
        ("fe80::1%eth0", "link_local"),
        ("fec0::1", "private"),
        ("ff0e::1", "multicast"),
        ("2606:4700::200:5efe:10.0.0.1", "isatap:private"),
    ],
)
def test_the_words_for_what_an_address_is(text: str, rule: str | None) -> None:
    assert rule_of(text) == rule


# --- metadata and ranges --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254",
        "169.254.170.2",
        "168.63.129.16",
        "100.100.100.200",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::a9fe:a9fe%eth0",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1:a9:fe:a9fe::",
        "64:ff9b:1:7a9:fe:a9fe::",
        "64:ff9b:1:0:a9:fea9:fe00:0",
        "64:ff9b:1:0:a9fe:a9fe::",
        "2002:a9fe:a9fe::1",
        "2001:0:1:2:3:4:5601:5601",
        "2606:4700::5efe:169.254.169.254",
    ],
)
def test_metadata_is_known_in_every_guise(text: str) -> None:
    assert is_metadata(number_of(text))


@given(V4)
def test_most_is_no_metadata(address: IPv4Address) -> None:
    assert not is_metadata(number_of(str(address))) or str(address).startswith(
        ("169.254.", "168.63.129.16", "100.100.100.200", "192.0.0.192")
    )


def test_a_range_reaches_what_an_address_leads_to() -> None:
    private = parse_range("10.0.0.0/8")
    assert private is not None
    for text in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::"):
        assert within(number_of(text), (private,)), text
    assert not within(number_of("11.0.0.1"), (private,))
    assert not within(number_of("10.0.0.1"), ())
