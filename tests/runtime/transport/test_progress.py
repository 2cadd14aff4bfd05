"""What a call's progress says of its disposition, and that errors carry it."""

import pytest

from vastar_client.wire.enums import Disposition
from vastar_runtime.transport.errors import TransportError
from vastar_runtime.transport.progress import Phase, Progress


@pytest.mark.parametrize(
    ("facts", "disposition"),
    [
        ({}, Disposition.NOT_SENT),
        ({"request_begun": True}, Disposition.SENT_NO_RESPONSE),
        ({"request_begun": True, "request_sent": True}, Disposition.SENT_NO_RESPONSE),
        ({"request_begun": True, "response_started": True}, Disposition.RESPONSE_STARTED),
        ({"response_started": True, "completed": True}, Disposition.COMPLETED),
    ],
)
def test_an_error_carries_what_the_progress_knows(
    facts: dict[str, bool], disposition: Disposition
) -> None:
    progress = Progress(phase=Phase.HEAD, **facts)  # type: ignore[arg-type]
    error = TransportError.at(progress, "api.test:80", "connection reset", timed_out=True)
    assert (error.phase, error.disposition) == (Phase.HEAD, disposition)
    assert error.timed_out
