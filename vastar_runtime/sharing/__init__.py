"""Policy state that several worker processes on one host share. One worker runs none of this.

Supervisor: `Ground(workers)` makes the memory (a file without a name) and the bells (pipes) that
workers inherit, and `reclaim`s what a dead one held. Worker: `sharing.Sharing.join(fd, index,
bells)` makes the machines of `vastar_runtime.policy` for keys, each over a record of the memory.

The machines are those of one process: every shared one steps the code of `policy` on what it loads
from its record. What differs is when it has to look:

- rates, tokens, purses, what upstreams tell: each step under the record's lock; exact.
- breakers and cooldowns: what is remembered holds while the record's version is the same (one word,
  no lock); successes go into a column of the worker's own, and are counted by whoever judges.
- places: in stock with each worker, and never more in all than the limit.

What is re-exported here is the supervisor's part, which does without Trio and structlog.
`memory` and `layout` say how none of it breaks when a worker dies halfway, and what the locks are.
"""

from vastar_runtime.sharing.ground import Ground, reclaim
from vastar_runtime.sharing.layout import Layout
from vastar_runtime.sharing.memory import Memory, lay_out

__all__ = ["Ground", "Layout", "Memory", "lay_out", "reclaim"]
