"""Open what a runtime of several workers needs, run it, and tidy up."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from vastar_runtime.config import MetricsConfig, RuntimeConfig
from vastar_runtime.listeners import Listener, close_listeners, open_listeners, open_tcp
from vastar_runtime.runtime_files import RuntimeFileError
from vastar_runtime.sharing.ground import Ground
from vastar_runtime.workers.counts import Counts, page_bytes
from vastar_runtime.workers.fleet import Fleet, FleetSettings
from vastar_runtime.workers.journal import Journal
from vastar_runtime.workers.place import MAX_WORKERS
from vastar_runtime.workers.spawning import shared_file
from vastar_runtime.workers.supervisor import Given, Shared, Supervisor

__all__ = ["supervise", "worker_count"]

_LOG_FD: Final = 2


def worker_count(workers: int | str) -> int:
    """How many workers `server.workers` asks for: `auto` is one for each core we may use."""
    if isinstance(workers, int):
        return workers
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(cores, MAX_WORKERS)


def supervise(
    config: RuntimeConfig, load: Callable[[], RuntimeConfig], now_s: float
) -> tuple[int, str | None]:
    """Serve with several workers until told to stop.

    Args:
        config: what to serve with.
        load: reads it anew, for SIGHUP and `reload`.
        now_s: of the monotonic clock.

    Returns:
        The exit status, and where a worker could not serve what it said of that.

    Raises:
        AlreadyRunningError: a runtime serves one of the addresses.
        RuntimeFileError: an address cannot be used.
    """
    count = worker_count(config.server.workers)
    log = config.log
    journal = Journal(_LOG_FD, log.level, log.format, is_terminal=os.isatty(_LOG_FD))
    with _given(config, count) as given:
        fleet = Fleet(count, FleetSettings(), now_s)
        supervisor = Supervisor(
            fleet, config, load, given=given, journal=journal, environ=os.environ
        )
        code = supervisor.run()
    journal.info("stopped")
    return code, supervisor.refusal


@contextmanager
def _given(config: RuntimeConfig, count: int) -> Iterator[Given]:
    """What the workers inherit; closed and removed at the end."""
    listeners = open_listeners(config.server)
    metrics: Listener | None = None
    counts_fd = -1
    try:
        metrics = _open_metrics(config.metrics)
        counts_fd = shared_file("vastar-workers", page_bytes(count))
        counts = Counts(counts_fd, count)
        try:
            with _shared(count) as shared:
                yield Given(listeners, metrics, counts_fd, counts, shared)
        finally:
            counts.close()
    finally:
        close_listeners(listeners)
        if metrics is not None:
            metrics.close()
        if counts_fd >= 0:
            os.close(counts_fd)


@contextmanager
def _shared(count: int) -> Iterator[Shared | None]:
    """What the workers' policies keep together; None where the system has no memory files."""
    if not _has_memory_files():
        yield None  # each worker then keeps to its own limits
        return
    ground = Ground(count)
    try:
        yield ground
    finally:
        ground.close()


def _has_memory_files() -> bool:
    return hasattr(os, "memfd_create")  # not on macOS


def _open_metrics(config: MetricsConfig) -> Listener | None:
    address = config.address()
    if address is None:
        return None
    try:
        return open_tcp(address)
    except RuntimeFileError as error:
        raise RuntimeFileError(f"metrics.listen: {error}") from None
