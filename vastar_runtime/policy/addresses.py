"""What an IP address is, as far as it matters to whether a call may go there.

Every address is one number of 128 bits, an IPv4 address in its mapped form (`::ffff:a.b.c.d`): so
an address and the other spelling of it cannot be judged apart. The tables are IANA's registries of
special purposes (RFC 6890 and what updates it), written down here because those of the standard
library differ between its patch releases. What is not known to be public is not: of IPv6 only
2000::/3 is given out as global unicast, and what leads to IPv4 is judged by the address inside.

The standard library's parser is not used: it is loaded for nothing else in most runtimes.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

__all__ = [
    "Number",
    "Range",
    "inside_rule",
    "is_metadata",
    "parse_address",
    "parse_range",
    "within",
]

Number: TypeAlias = int
"""An address as 128 bits."""

Range: TypeAlias = tuple[int, int]
"""The first and the last address of a network."""

_BITS: Final = 128
_V4_BITS: Final = 32
_MAPPED: Final = 0xFFFF << _V4_BITS
_LOW_32: Final = 0xFFFF_FFFF
_OCTETS: Final = 4
_MOST_OCTET: Final = 255
_GROUPS: Final = 8
_GROUP_DIGITS: Final = 4
_HEX: Final = frozenset("0123456789abcdefABCDEF")

# Prefixes, without the bits behind them.
_NAT64: Final = 0x64_FF9B << 64  # RFC 6052
_NAT64_LOCAL: Final = 0x64_FF9B_0001  # RFC 8215
_TRANSLATED: Final = 0xFFFF << 16  # RFC 2765
_6TO4: Final = 0x2002  # RFC 3056
_TEREDO: Final = 0x2001_0000  # RFC 4380
_ISATAP: Final = 0x0000_5EFE  # RFC 5214: within an interface's identifier, under any prefix
_ISATAP_MASK: Final = 0xFCFF_FFFF


def parse_address(text: str) -> Number | None:
    """The address that `text` writes, in the one way of IPv4 or any of IPv6; None: it is none.

    A zone (`%eth0`) says by which way, not where: it is left out.
    """
    if ":" not in text:
        number = _v4(text)
        return None if number is None else _MAPPED | number
    return _v6(text.partition("%")[0])


def parse_range(text: str) -> Range | None:
    """The network that `text` writes (`10.0.0.0/8`, or one address); None: it is none."""
    base, slash, length = text.partition("/")
    number = parse_address(base)
    if number is None:
        return None
    width = _BITS if ":" in base else _V4_BITS
    if not slash:
        return number, number
    if not (length.isascii() and length.isdigit() and int(length) <= width):
        return None
    size = 1 << (width - int(length))
    first = number & ~(size - 1)
    return first, first + size - 1


def _v4(text: str) -> int | None:
    octets = text.split(".")
    if len(octets) != _OCTETS:
        return None
    number = 0
    for octet in octets:
        # "010" is 8 to some and 10 to others: to nobody here.
        if not (octet.isascii() and octet.isdigit()) or (octet[0] == "0" and octet != "0"):
            return None
        if int(octet) > _MOST_OCTET:
            return None
        number = number << 8 | int(octet)
    return number


def _v6(text: str) -> int | None:
    if "." in text:
        rest, _, last = text.rpartition(":")
        number = _v4(last)
        if number is None:
            return None
        text = f"{rest}:{number >> 16:x}:{number & 0xFFFF:x}"
    head, gap, tail = text.partition("::")
    left = head.split(":") if head else []
    right = tail.split(":") if tail else []
    missing = _GROUPS - len(left) - len(right)
    if missing < 1 if gap else missing:
        return None
    number = 0
    for group in (*left, *["0"] * missing, *right):
        if not 1 <= len(group) <= _GROUP_DIGITS or not _HEX.issuperset(group):
            return None
        number = number << 16 | int(group, 16)
    return number


def _table(*rows: tuple[str, str]) -> tuple[tuple[int, int, str], ...]:
    found = []
    for text, rule in rows:
        network = parse_range(text)
        assert network is not None, text
        found.append((*network, rule))
    return tuple(found)


_INSIDE: Final = _table(
    ("0.0.0.0/8", "unspecified"),  # Linux takes 0.0.0.0 for itself
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "cgnat"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link_local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4"),  # its relays (RFC 7526)
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("240.0.0.0/4", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("64:ff9b:1::/48", "nat64"),  # RFC 8215: of one network alone
    ("2001::/32", "teredo"),
    ("2001:db8::/32", "documentation"),
    ("2001::/23", "reserved"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link_local"),
    ("fec0::/10", "private"),  # site-local, of old (RFC 3879)
    ("ff00::/8", "multicast"),
)
"""Not of the Internet; the first row that fits."""

_PUBLIC: Final = _table(
    ("::ffff:0:0/96", "IPv4"),
    ("64:ff9b::/96", "nat64"),
    ("2000::/3", "IPv6"),
)
"""What may be public, where the other table says nothing else."""

_METADATA: Final = frozenset(
    first
    for first, _, _ in _table(
        ("169.254.169.254", "AWS, Azure, Google, Oracle, OpenStack and most others"),
        ("169.254.170.2", "AWS: credentials of tasks"),
        ("169.254.170.23", "AWS: credentials of pods"),
        ("169.254.0.23", "Tencent"),
        ("169.254.42.42", "Scaleway"),
        ("168.63.129.16", "Azure: the host's agent"),
        ("100.100.100.200", "Alibaba"),
        ("192.0.0.192", "Oracle, of old"),
        ("fd00:ec2::254", "AWS"),
        ("fd00:ec2::23", "AWS: credentials of pods"),
        ("fd20:ce::254", "Google"),
        ("fd00:42::42", "Scaleway"),
        ("fe80::a9fe:a9fe", "OpenStack"),
    )
)
"""Where clouds hand out the credentials of a host to whoever asks (from their documentation)."""


def is_metadata(number: Number) -> bool:
    """Whether it is an address of cloud metadata, or leads to one."""
    if number in _METADATA or any(inner in _METADATA for _, inner in _embedded(number)):
        return True
    # A translator that leaves out the octet 8: no standard has it so, but it leads there.
    is_local = number >> 80 == _NAT64_LOCAL
    return is_local and _MAPPED | number >> 32 & _LOW_32 in _METADATA


def inside_rule(number: Number) -> str | None:
    """Why an address is not one of the Internet, in a word; None: it is.

    Of an address that leads to another one both are told: `nat64:private`.
    """
    rule = _rule(number)
    for way, inner in _embedded(number):
        inner_rule = _rule(inner)
        if inner_rule is not None:
            return f"{way}:{inner_rule}"
    return rule


def _rule(number: Number) -> str | None:
    for first, last, rule in _INSIDE:
        if first <= number <= last:
            return rule
    is_public = any(first <= number <= last for first, last, _ in _PUBLIC)
    return None if is_public else "reserved"


def within(number: Number, ranges: tuple[Range, ...]) -> bool:
    """Whether an address, or one that it leads to, is in one of the ranges."""
    numbers = (number, *(inner for _, inner in _embedded(number)))
    return any(first <= each <= last for each in numbers for first, last in ranges)


def _embedded(number: Number) -> Iterator[tuple[str, Number]]:
    """The IPv4 addresses that an IPv6 address leads to or names, with the way."""
    last = _MAPPED | number & _LOW_32
    if number >> 32 == _NAT64:
        yield "nat64", last
    elif number >> 32 == _TRANSLATED or (not number >> 32 and number > 1):
        yield "embedded", last
    elif number >> 80 == _NAT64_LOCAL:  # RFC 6052, 2.2: around the octet 8, behind it, at the end
        yield "nat64", _MAPPED | (number >> 48 & 0xFFFF_0000) | (number >> 40 & 0xFFFF)
        yield "nat64", _MAPPED | (number >> 40 & 0xFF00_0000) | (number >> 32 & 0xFF_FFFF)
        yield "nat64", _MAPPED | number >> 24 & _LOW_32
        yield "nat64", last
    elif number >> 112 == _6TO4:
        yield "6to4", _MAPPED | number >> 80 & _LOW_32
    elif number >> 96 == _TEREDO:  # each bit inverted
        yield "teredo", _MAPPED | ~number & _LOW_32
    elif number >> 32 & _ISATAP_MASK == _ISATAP:
        yield "isatap", last
