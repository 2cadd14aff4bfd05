"""A world in which only the Internet may be reached, and a server would answer everywhere.

Behind every address of its network listens a server, on every port: what the guard does not refuse
gets an answer.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.support.running import Handler, Running, running
from vastar_runtime.config import PoliciesConfig, RuntimeConfig, merge

__all__ = ["GOOD", "METADATA", "PUBLIC", "config", "world"]

PUBLIC = "93.184.216.34"
OWN = "93.184.216.99"
METADATA = "169.254.169.254"
GOOD = "http://good.test/small"
NAMES: Mapping[str, list[Sequence[str]]] = {
    "good.test": [(PUBLIC,)],
    "good.test.": [(PUBLIC,)],
    "localhost": [("127.0.0.1",)],
    "localhost.": [("127.0.0.1",)],
    "localhost6": [("::1",)],
    "127.0.0.1.nip.test": [("127.0.0.1",)],
    "0127.0.0.1.nip.test": [("127.0.0.1",)],
    "intra.test": [("10.0.0.5",)],
    "intra6.test": [("fd12:3456::5",)],
    "linklocal.test": [("fe80::1%eth0",)],
    "mapped.test": [("::ffff:10.0.0.5",)],
    "nat64.test": [("64:ff9b::a00:5",)],
    "several.test": [("10.0.0.5", "192.168.1.1")],
    "metadata.test": [(METADATA,)],
    "xn--mnchen-3ya.test": [("172.16.0.1",)],
    "own.test": [(OWN,)],
    "host.docker.internal": [("192.168.65.2",)],
    "kubernetes.default.svc": [("10.96.0.1",)],
}
RULES: dict[str, Any] = {
    "addresses": "public",
    "deny_hosts": ("*.corp.test", "evil.test", "xn--bcher-kva.test"),
    "allow_ports": (80, 443, 8080),
    "deny_ranges": ("93.184.217.0/24",),
}


def config(rules: Mapping[str, Any] | None = None, **tables: Any) -> RuntimeConfig:
    defaults = merge(PoliciesConfig(), [{"egress": RULES if rules is None else dict(rules)}])
    return RuntimeConfig(defaults=defaults, **tables)


class Everywhere(defaultdict[int, Handler]):
    """A server on every port."""

    def get(self, key: int, default: object = None) -> Handler:  # type: ignore[override]
        return self[key]


@asynccontextmanager
async def world(made: RuntimeConfig | None = None) -> AsyncIterator[Running]:
    async with running(made or config()) as runtime:
        runtime.network.handlers = Everywhere(lambda: runtime.upstream.handle)
        runtime.network.names = {name: list(found) for name, found in NAMES.items()}
        runtime.network.own_addresses = {OWN}
        yield runtime
