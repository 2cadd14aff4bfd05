"""What happened so far, for `GET /_sim/stats` and for tests in the same process.

A later test proves with these numbers that a cancellation reached the upstream: `cut_by_client`
goes up and `active_streams` comes back down.
"""

import msgspec


class Stats(msgspec.Struct):
    """Counters since the start. Requests to `/_sim/` are left out of all but the connections."""

    connections_open: int = 0
    connections_total: int = 0
    requests: int = 0
    active_requests: int = 0
    active_streams: int = 0
    """Event streams whose head was sent and which have not ended."""
    finished: int = 0
    """Answers of any kind that were sent whole, counted just after their last byte."""
    streams_finished: int = 0
    cut_by_client: int = 0
    """Answers that were under way, or still to begin, when the caller left."""
    streams_cut_by_client: int = 0
    cut_by_knob: int = 0
    """Answers broken off by `cut_after_events`."""
    events_sent: int = 0
