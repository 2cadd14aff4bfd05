"""Protocol errors, told apart by who is to blame.

`LocalProtocolError`: our own caller asked for something that the protocol does not allow.
`RemoteProtocolError`: the peer sent it; it carries what a runtime answers with and whether the
connection can go on. Any other exception that leaves this package is a bug of ours.
"""

from vastar_client.wire.enums import ErrorClass

__all__ = ["LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class ProtocolError(Exception):
    """Base of both kinds."""


class LocalProtocolError(ProtocolError):
    """This side tried to send what the protocol does not allow in the present state."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    Attributes:
        request_id: the id of the message at fault when it could be read, else 0.
        closes: whether the connection cannot go on (the framing is lost).
        error_class: the class to answer with.
    """

    error_class = ErrorClass.INVALID_REQUEST

    def __init__(self, reason: str, *, request_id: int = 0, closes: bool = False) -> None:
        super().__init__(reason)
        self.request_id = request_id
        self.closes = closes
