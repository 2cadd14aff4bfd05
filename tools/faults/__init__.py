"""Faults on purpose: a proxy that spoils connections, and an upstream that means harm.

`python -m tools.faults --help` runs either as a program. In a test:

    async with proxied("127.0.0.1:4545", Plan.parse("latency=0.05 2:reset@1000")) as proxy: ...
    async with serve_hostile(CATALOGUE["ends-in-body"]) as upstream: ...

`FaultProxy.serve_stream` and `HostileUpstream.serve_stream` are the same without a socket. Each
misbehaviour of the catalogue says which error class, message and disposition a runtime has to
answer with: `tests/tools/test_faults_catalogue.py` holds ours to it.
"""

from tools.faults._hostile import CATALOGUE, WELL, HostileUpstream, serve_hostile
from tools.faults._misbehaviour import Expected, Misbehaviour
from tools.faults._plan import BadFaultError, Direction, Ending, Fault, Link, Plan
from tools.faults._proxy import FaultProxy, Happening, proxied

__all__ = [
    "CATALOGUE",
    "WELL",
    "BadFaultError",
    "Direction",
    "Ending",
    "Expected",
    "Fault",
    "FaultProxy",
    "Happening",
    "HostileUpstream",
    "Link",
    "Misbehaviour",
    "Plan",
    "proxied",
    "serve_hostile",
]
