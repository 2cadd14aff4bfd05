"""Through a proxy to the origin: CONNECT and SOCKS5, spoken over an open channel to the proxy.

CONNECT goes through httpcore's HTTP/1.1 connection and stream interface, SOCKS5 through socksio,
which only knows the messages: where each ends on the wire is worked out here. Both packages are
imported on first use, as most runtimes have no proxy. Every failure is a `ProxyFailure` with words
that hold neither credentials nor anything that the proxy sent besides its status code.

Where the proxy's rules or its users' list say no (403, 407, their like in SOCKS5), it is a
`LocalFault`: that comes of our settings, says nothing of the upstream, and is the same next time.
"""

import ssl
import typing

import trio

from vastar_runtime.transport.channel import Channel
from vastar_runtime.transport.errors import LocalFault
from vastar_runtime.transport.messages import Origin
from vastar_runtime.transport.proxy import Proxy

if typing.TYPE_CHECKING:
    import httpcore
    from socksio import socks5

__all__ = ["ProxyFailure", "open_tunnel"]

_OK = 200
_MULTIPLE_CHOICES = 300
_FORBIDDEN = 403
_AUTHENTICATION_REQUIRED = 407
_MAX_FIELD_BYTES = 255


class ProxyFailure(Exception):  # noqa: N818 - what happened
    """The proxy did not open the way, though it may another time. The text is the cause."""


async def open_tunnel(channel: Channel, proxy: Proxy, origin: Origin, host: str) -> None:
    """Make `channel`, connected to `proxy`, lead to `origin`.

    Args:
        channel: nothing was sent on it yet. Of no use after a failure.
        proxy: whom it is connected to.
        origin: where to.
        host: the name or the address to ask the proxy for.

    Raises:
        ProxyFailure: the proxy failed, or answered what is no HTTP or no SOCKS5.
        LocalFault: it does not do this for us.
        trio.BrokenResourceError: the connection to the proxy failed.
    """
    if proxy.is_socks:
        await _socks5(channel, proxy, host, origin.port)
    else:
        await _connect(channel, proxy, origin)


async def _connect(channel: Channel, proxy: Proxy, origin: Origin) -> None:
    import httpcore  # noqa: PLC0415 - see above

    authority = origin.address.encode()
    request = httpcore.Request(
        b"CONNECT",
        httpcore.URL(scheme=b"http", host=proxy.host.encode(), port=proxy.port, target=authority),
        headers=[(b"host", authority), *proxy.headers],
        content=_NoBody(),
    )
    connection = httpcore.AsyncHTTP11Connection(
        httpcore.Origin(b"http", proxy.host.encode(), proxy.port), _stream_over(channel)
    )
    try:
        response = await connection.handle_async_request(request)
    except httpcore.NetworkError as error:
        raise ProxyFailure("the connection to the proxy broke") from error
    except httpcore.ProtocolError as error:
        raise ProxyFailure("the proxy's answer to CONNECT is no HTTP response") from error
    if response.status == _AUTHENTICATION_REQUIRED:
        raise LocalFault("the proxy wants authentication (407)")
    if response.status == _FORBIDDEN:
        raise LocalFault("the proxy forbids CONNECT (403)")
    if not _OK <= response.status < _MULTIPLE_CHOICES:
        raise ProxyFailure(f"the proxy refused CONNECT with status {response.status}")


class _NoBody:
    """No body. httpcore's own is an async generator, which a cancellation leaves unfinished."""

    def __aiter__(self) -> "_NoBody":
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


def _stream_over(channel: Channel) -> "httpcore.AsyncNetworkStream":
    """The channel behind httpcore's stream interface."""
    import httpcore  # noqa: PLC0415 - see above

    class _ChannelNetworkStream(httpcore.AsyncNetworkStream):
        """Timeouts are the caller's cancel scopes: httpcore is never given one."""

        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109, ARG002 - httpcore's signature
            try:
                return await channel.receive_some(max_bytes)
            except trio.BrokenResourceError as error:
                raise httpcore.ReadError from error

        async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109, ARG002 - httpcore's signature
            if not buffer:
                return
            try:
                await channel.send_buffers((buffer,))
            except trio.BrokenResourceError as error:
                raise httpcore.WriteError from error  # httpcore then reads what was answered

        async def aclose(self) -> None:
            channel.abort()

        async def start_tls(
            self,
            ssl_context: "ssl.SSLContext",
            server_hostname: str | None = None,
            timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        ) -> httpcore.AsyncNetworkStream:
            raise NotImplementedError("TLS inside a tunnel is started by the dialer")

        def get_extra_info(self, info: str) -> typing.Any:  # noqa: ARG002 - httpcore's signature
            return None

    return _ChannelNetworkStream()


async def _socks5(channel: Channel, proxy: Proxy, host: str, port: int) -> None:
    from socksio import ProtocolError, SOCKSError  # noqa: PLC0415 - see above
    from socksio.socks5 import SOCKS5Connection  # noqa: PLC0415

    conversation = SOCKS5Connection()
    try:
        await _authenticate(channel, proxy, conversation)
        await _ask(channel, host, port, conversation)
    except (ProtocolError, SOCKSError) as error:
        raise ProxyFailure("the proxy's answer is no SOCKS5") from error


async def _authenticate(
    channel: Channel, proxy: Proxy, conversation: "socks5.SOCKS5Connection"
) -> None:
    """Agree on a method and, where it is asked for, give name and password (RFC 1928, 1929)."""
    from socksio import socks5  # noqa: PLC0415 - see above

    methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if proxy.username is not None:
        methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
    conversation.send(socks5.SOCKS5AuthMethodsRequest(methods))
    await channel.send_buffers((conversation.data_to_send(),))
    answer = conversation.receive_data(await _receive_exactly(channel, 2))
    chosen = typing.cast("socks5.SOCKS5AuthReply", answer)
    if chosen.method not in methods:
        raise LocalFault("the proxy wants authentication")
    if chosen.method == socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED or proxy.username is None:
        return
    if max(len(proxy.username), len(proxy.password)) > _MAX_FIELD_BYTES:
        raise LocalFault("name or password is longer than the 255 bytes that SOCKS5 can carry")
    conversation.send(socks5.SOCKS5UsernamePasswordRequest(proxy.username, proxy.password))
    await channel.send_buffers((conversation.data_to_send(),))
    answer = conversation.receive_data(await _receive_exactly(channel, 2))
    verdict = typing.cast("socks5.SOCKS5UsernamePasswordReply", answer)
    if not verdict.success:
        raise LocalFault("the proxy refused the name and password")


async def _ask(
    channel: Channel, host: str, port: int, conversation: "socks5.SOCKS5Connection"
) -> None:
    """Ask for the connection (RFC 1928, 4 to 6)."""
    from socksio import socks5  # noqa: PLC0415 - see above

    if len(host.encode()) > _MAX_FIELD_BYTES:
        raise LocalFault("the host name is longer than the 255 bytes that SOCKS5 can carry")
    conversation.send(
        socks5.SOCKS5CommandRequest.from_address(socks5.SOCKS5Command.CONNECT, (host, port))
    )
    await channel.send_buffers((conversation.data_to_send(),))
    head = await _receive_exactly(channel, 5)
    rest_bytes = {1: 5, 3: head[4] + 2, 4: 17}.get(head[3])
    if rest_bytes is None:
        raise ProxyFailure("the proxy's answer is no SOCKS5")
    answer = conversation.receive_data(head + await _receive_exactly(channel, rest_bytes))
    reply = typing.cast("socks5.SOCKS5Reply", answer)
    if reply.reply_code != socks5.SOCKS5ReplyCode.SUCCEEDED:
        words = reply.reply_code.name.lower().replace("_", " ")
        if reply.reply_code == socks5.SOCKS5ReplyCode.CONNECTION_NOT_ALLOWED_BY_RULESET:
            raise LocalFault(f"the proxy could not connect: {words}")
        raise ProxyFailure(f"the proxy could not connect: {words}")


async def _receive_exactly(channel: Channel, count: int) -> bytes:
    """So many bytes and none more: what follows belongs to the origin."""
    received = b""
    while len(received) < count:
        piece = await channel.receive_some(count - len(received))
        if not piece:
            raise ProxyFailure("the proxy closed the connection")
        received += piece
    return received
