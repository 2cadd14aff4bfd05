"""Hosts and ranges of the egress guard: each is one, and is written as calls are compared to it.

A pattern that no call can fit would allow or deny nothing, and nobody would notice. So a name has
to be the one that a URL's host is after parsing (WHATWG's rules): lower case, punycode, no dot at
its end.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Final

from vastar_runtime.config._merge import all_written
from vastar_runtime.config._model import RuntimeConfig
from vastar_runtime.config._names import BadName, canonical_origin
from vastar_runtime.config._policies import DEFAULTS
from vastar_runtime.config._toml import dotted, quoted

__all__ = ["check_egress"]

_TABLE: Final = "egress"
_HOSTS: Final = ("allow_hosts", "deny_hosts")
_RANGES: Final = ("allow_ranges", "deny_ranges")
_NO_HOST: Final = re.compile(r"[/?#@\s\\]|:\d*$|\*")
_EXAMPLE: Final = 'give "api.example.com", "*.example.com" (all below it), an address, or "*"'

_Fault = tuple[str, str, str]


def check_egress(config: RuntimeConfig) -> Iterator[_Fault]:
    """Key, what is wrong and what would be right."""
    defaults = config.defaults.egress
    written = {key: getattr(defaults, key) for key in (*_HOSTS, *_RANGES)}
    yield from _check_table((DEFAULTS, _TABLE), written)
    for place in all_written(config):
        if _TABLE in place.tables:
            yield from _check_table((*place.path, _TABLE), place.tables[_TABLE])


def _check_table(path: tuple[str, ...], table: "dict[str, tuple[str, ...]]") -> Iterator[_Fault]:
    for keys, check in ((_HOSTS, _check_hosts), (_RANGES, _check_ranges)):
        for key in keys:
            for wrong, right in check(table.get(key, ())):
                yield dotted((*path, key)), wrong, right


def _check_hosts(patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    for pattern in patterns:
        if pattern == "*":
            continue
        name = pattern.removeprefix("*.")
        known = _canonical(name)
        if known is None:
            yield f"{quoted(pattern)} is no host", _EXAMPLE
        elif name != pattern and _is_address(known):
            yield f"{quoted(pattern)} fits nothing: there is nothing below an address", _EXAMPLE
        elif known != name:
            right = pattern.removesuffix(name) + known
            yield f"{quoted(pattern)} would never fit a call's host", f"write {quoted(right)}"


def _canonical(name: str) -> str | None:
    """How a call's origin names the host; None where that is no host."""
    host = f"[{name}]" if ":" in name and _is_address(name) else name
    if _NO_HOST.search(host):
        return None
    try:
        origin = canonical_origin(f"https://{host}")
    except BadName:
        return None
    return origin.removeprefix("https://").strip("[]").rstrip(".") or None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_ranges(ranges: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in ranges:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            yield f"{quoted(text)} is no network", _right_range(text)


def _right_range(text: str) -> str:
    try:
        return f"write {quoted(str(ipaddress.ip_network(text, strict=False)))}"
    except ValueError:
        return "give an address or a network, such as 10.1.0.0/16 or fd00:1::/64"
