"""Faults on purpose: a proxy that spoils connections, and an upstream that means harm.

`python -m tools.faults --help` runs either as a program. In a test:

    async with proxied("127.0.0.1:4545", Plan.parse("latency=0.05 reset@1000")) as proxy: ...
    async with serve_hostile(CATALOGUE["ends-in-body"]) as upstream: ...

Each misbehaviour of the catalogue says which error class, message and disposition a runtime has to
answer with: `tests/tools/test_faults_catalogue.py` holds ours to it.
"""

from tools.faults._hostile import CATALOGUE, WELL, HostileUpstream, serve_hostile
from tools.faults._misbehaviour import Expected, Misbehaviour

__all__ = ["CATALOGUE", "WELL", "Expected", "HostileUpstream", "Misbehaviour", "serve_hostile"]
