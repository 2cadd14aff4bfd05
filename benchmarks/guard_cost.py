"""CPU us of the egress guard: of a call's name, and of the address of a new connection.

Peer: the same rules asked as one would write them in an afternoon, `fnmatch` over the list and the
standard library's `ipaddress`, asked at each call. The contestants take turns round by round.

Shape: the questions alone in one process, as a lease and the transport ask them: with the guard
off, with its defaults, with 100 rules about names where addresses have to be public. A connector
calls the same few origins again and again, so their verdicts are kept; "a new name" is one that was
never asked before. An address is judged once for each connection, not for each call; for "our own"
the kernel is asked whether it is one of this host's.

Cheating would be: a name that the first of the rules decides; rules that are not asked, because the
list is empty; only kept verdicts, though callers choose the names; an address that needs no look at
the whole table.
"""

import fnmatch
import ipaddress
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from benchmarks._report import Claim, Options, Report, Row, median, watch_others
from vastar_client.wire import ExecuteRequest
from vastar_runtime.calls import Call, Caller
from vastar_runtime.config import PoliciesConfig, RuntimeConfig, merge
from vastar_runtime.pipeline import Machines
from vastar_runtime.pipeline.guarding import EgressGuard
from vastar_runtime.pipeline.policies import Gates
from vastar_runtime.policy.deadline import Deadline
from vastar_runtime.policy_book import PolicyBook
from vastar_runtime.transport import Origin, is_own_address

__all__ = ["SUMMARY", "run"]

SUMMARY: Final = "CPU us of the egress guard a call and a connection, with and without rules"
WANTED_US: Final = 3.0
_CALLS: Final = 5_000
_ORIGIN: Final = Origin("https", "api.openai.com", 443)
_IP: Final = "104.18.7.192"
_SCOPE: Final = ("acme", "prod")
_NAMES: Final = tuple(f"*.team{number}.example.com" for number in range(99))
_RULES: Final[Mapping[str, Any]] = {
    "addresses": "public",
    "allow_hosts": (*_NAMES, _ORIGIN.host, "*.fresh.test"),
    "deny_hosts": ("*.corp.example.com",),
    "allow_ports": (443,),
}
_BY_DEFAULT: Final = "defaults"


def run(options: Options) -> Report:
    """Measure everybody in turn."""
    report = Report("guard_cost", [])
    us: dict[str, list[float]] = {}
    with watch_others(report):
        asked = trio.run(_contestants)
        for _ in range(options.rounds):
            for name, ask in asked.items():
                us.setdefault(name, []).append(_cpu_us(ask))
    for name, found in us.items():
        row: Row = {"what": name, "us": round(median(found), 2)}
        report.rows.append(row)
    report.claims.append(
        Claim("CPU us a call by default", median(us[_BY_DEFAULT]), WANTED_US, at_most=True)
    )
    return report


async def _contestants() -> dict[str, Callable[[], object]]:
    """What is asked, by row. Machines are made within Trio."""
    off, default, ruled = _Guard({"mode": "off"}), _Guard({}), _Guard(_RULES)
    numbers = itertools.count()
    return {
        "off": lambda: off.name(_ORIGIN),
        _BY_DEFAULT: lambda: default.name(_ORIGIN),
        "100 rules about names": lambda: ruled.name(_ORIGIN),
        "100 rules, a new name": lambda: ruled.name(
            Origin("https", f"h{next(numbers)}.fresh.test", 443)
        ),
        "100 rules, by fnmatch": _by_fnmatch,
        "an address, defaults": lambda: default.address(_IP),
        "an address, public": lambda: ruled.address(_IP),
        "an address, by ipaddress": _by_ipaddress,
        "whether it is our own": lambda: is_own_address(_IP),
    }


class _Guard:
    """A guard under rules, and a call that meets it."""

    def __init__(self, rules: Mapping[str, Any]) -> None:
        defaults = merge(PoliciesConfig(), [{"egress": dict(rules)}])
        self._book = PolicyBook(RuntimeConfig(defaults=defaults))
        self._guard = EgressGuard(Machines(self._book), Gates())
        request = ExecuteRequest(1, "acme", "http", "request")
        self._call = Call(request, Caller(), Deadline.arrive(0.0, 0.0, 0, 30.0), 1 << 20)

    def name(self, origin: Origin) -> None:
        rules = self._book.of("acme", "prod", "https://api.openai.com").egress
        assert self._guard.refuses(self._call, rules, origin) is None

    def address(self, ip: str) -> None:
        self._guard.check_address(_SCOPE, _ORIGIN, ip)


def _by_fnmatch() -> None:
    host, hosts = _ORIGIN.host, _RULES["allow_hosts"]
    assert not fnmatch.fnmatch(host, "*.corp.example.com")
    assert any(fnmatch.fnmatch(host, pattern) for pattern in hosts)


def _by_ipaddress() -> None:
    address = ipaddress.ip_address(_IP)
    assert address.is_global
    assert not address.is_multicast


def _cpu_us(ask: Callable[[], object]) -> float:
    """CPU microseconds of one question."""
    began_s = time.process_time()
    for _ in range(_CALLS):
        ask()
    return (time.process_time() - began_s) / _CALLS * 1e6
