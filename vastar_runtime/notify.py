"""Tell systemd how the service is: `sd_notify` in ten lines, for `Type=notify` units.

One datagram to the socket in NOTIFY_SOCKET (sd_notify(3)); without that variable nothing happens.
A manager that cannot be told is no reason to stop serving.
"""

import os
import socket
from collections.abc import Mapping

__all__ = ["notify"]


def notify(state: str, environ: Mapping[str, str] | None = None) -> bool:
    """Send `state` ("READY=1", "STOPPING=1"; lines joined by newlines).

    Returns:
        Whether it was sent: False when nobody asked, or the socket is gone.
    """
    path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), address)
    except OSError:
        return False
    return True
