"""What the tests of blocking streams share: an upstream with a path for each kind of answer."""

import itertools

from tests.support.client_threads import until
from vastar_client.errors import ConnectorException
from vastar_client.testing import HOLD, respond, respond_events, respond_stream
from vastar_client.wire import Disposition, ErrorClass
from vastar_client.wire.sse import SSEEvent

__all__ = ["assert_nothing_is_left", "serve", "stream"]

CUT = ConnectorException("cut", ErrorClass.TRANSIENT, disposition=Disposition.RESPONSE_STARTED)


def delta(text):
    return {"choices": [{"delta": {"content": text}}]}


def serve(request):
    """What each path of the upstream gives."""
    path = request.url.rpartition("/")[2]
    if path == "echo":
        return respond(body=request.body or b"")
    return {
        "events": lambda: respond_events(["one", SSEEvent("two", "n", "7"), "three"]),
        "deltas": lambda: respond_events([delta("Hel"), delta("lo"), "[DONE]", HOLD]),
        "lines": lambda: respond_stream(["a\r", "\nb\nlong", "er"], trailers={"sum": "5"}),
        "text": lambda: respond_stream([b"\xe9"], headers={"content-type": "a/b;charset=latin-1"}),
        "endless": lambda: respond_stream(itertools.repeat(b"x" * 1000)),
        "held": lambda: respond_stream(["x", HOLD]),
        "silent": lambda: HOLD,
        "cut": lambda: respond_stream(["x", CUT]),
        "error": lambda: respond_stream(["why"], status_code=503),
    }[path]()


def stream(client, path, **options):
    return client.stream("GET", f"http://api.test/{path}", **options)


def assert_nothing_is_left(client):
    link = client._connected.client._link

    def is_free():
        session = link._session
        return (
            link._slots.value == 256
            and not session._pending
            and not session._late
            and len(link._tasks._nursery.child_tasks) == 1
        )

    until(is_free)
