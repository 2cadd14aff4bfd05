"""What the tests of the blocking client share: threads, and a runtime that echoes."""

import threading
import time

from vastar_client.testing import respond

URL = "http://api.test/x"


def echo(request):
    return respond(headers=[("X-Method", request.method), ("X-Url", request.url)])


def until(condition, timeout_s=5.0):
    """Wait for another thread; the condition is about to hold."""
    ends_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.001)


def in_thread(function):
    """Run `function` in a thread; give what it raised, or None, in a list once it has ended."""
    caught = []

    def run():
        try:
            function()
            caught.append(None)
        except Exception as error:  # noqa: BLE001
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, caught
