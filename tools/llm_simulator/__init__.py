"""An LLM endpoint on loopback that answers, streams, dawdles and fails as it is told to.

In a test: `async with Simulator(Knobs(seed=1)).running() as simulator:` gives `simulator.url`;
`await nursery.start(simulator.serve, host, port)` and `simulator.serve_stream(stream)` are the
same service without the nursery, and without a socket. `simulator.stats` counts, and
`await simulator.wait_for(lambda stats: stats.cut_by_client == 1)` waits for a count. As a program:
`python -m tools.llm_simulator --help`.
"""

from tools.llm_simulator._knobs import BadKnobError, Knobs
from tools.llm_simulator._server import Simulator
from tools.llm_simulator._stats import Stats

__all__ = ["BadKnobError", "Knobs", "Simulator", "Stats"]
