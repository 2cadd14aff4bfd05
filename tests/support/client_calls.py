"""What the tests of the async client share: an echoing upstream, and a look inside the client."""

import trio.testing

from vastar_client.testing import respond

__all__ = ["URL", "assert_nothing_is_left", "connected", "echo", "link_of"]

URL = "http://api.test/x"


def echo(request):
    body = request.body if isinstance(request.body, bytes) else (request.body or "").encode()
    return respond(headers=[("X-Method", request.method), ("X-Url", request.url)], body=body)


def link_of(client):
    return client._link


def assert_nothing_is_left(client):
    session = link_of(client)._session
    if session is not None:
        assert session._pending == {}
        assert session._late == set()
        assert not session._health
        assert not session._outgoing
    assert link_of(client)._slots.value == 256
    assert link_of(client)._waiting == 0


async def connected(client):
    """Wait until the client has a connection, without making a call."""
    while link_of(client)._session is None:
        await trio.testing.wait_all_tasks_blocked()
