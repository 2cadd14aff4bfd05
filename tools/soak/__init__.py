"""Soak: mixed load with faults, deaths and restarts, over minutes or hours, and a verdict.

    python -m tools.soak --minutes 10
    python -m tools.soak --minutes 60 --workers 2 --seed 3 --out soak-out
    python -m tools.soak --minutes 5 --socket PATH     # a runtime that is there; nothing of it dies

Shape. This process holds all that judges: an upstream that counts every request by the id of its
call (`_upstream`), a proxy with faults before it (`tools.faults`), a hostile upstream, one that is
silent and a port that refuses; the ledger (`_ledger`); a look at everything each second
(`_samples`). The runtime is a process that it starts, with `--workers N` a supervisor and workers.
The load comes from three client processes (`_client`): an `AsyncRuntimeClient` with 16 callers, a
`RuntimeClient` with 8 threads, and one that speaks the wire itself and counts final frames. Each
writes a line before a call begins and one behind its end, so one that is killed leaves a true
account.

Load (`_mix`): reads and posts small and large, with an idempotency key and without, uploads in
pieces, event streams read to the end and left, cancelled calls, deadlines of all sizes, failing,
refusing, silent and hostile upstreams, faults on the way, health checks, SQLite, wrong frames; for
three tenants and two workspaces of each.

Happenings (`_schedule`): SIGKILL of the runtime, of a worker, of clients in the middle of calls;
SIGTERM and a restart; SIGHUP with a changed configuration; restarts of the upstream; weather. Calm
parts, in which the runtime lives on, lie around each storm, so that slopes can be judged.

What must hold:

- every call that a client began ends once, with one answer or one error, which is its own;
- "not sent" means that the upstream never saw it; an answer, that it did; it saw no more requests
  than `attempts` tells; what may not happen twice was acted on once at most, whoever was killed;
- connections of clients end only with the runtime, and clients are back within `--recover-s`;
- at quiet points, when all clients rest, the runtime holds no call, place, stream or upstream
  connection in use, and files and tasks are back to their base line;
- the runtime logs no internal error;
- memory, files, threads and tasks of the runtime and of clients do not grow (`_judge`): over each
  life under load, behind a warm-up of a minute or a quarter, and from one quiet point to the next.
  Each verdict tells its slope, interval and bound, by the minute and by 1,000 calls.

A call may fail: under faults many do. What is judged is what is said about it.
"""

from tools.soak._judge import Trend, trend
from tools.soak._run import Report, Wanted, soak

__all__ = ["Report", "Trend", "Wanted", "soak", "trend"]
