"""An upstream that speaks TLS, in its own process, and the authority that vouches for it.

    python -m benchmarks._tls_upstream CERTIFICATE_AND_KEY.pem

Prints its URL when it is ready and answers every request head with the small answer. Shape: a
thread for each connection, blocking: calls come one at a time here, and what is measured is the
runtime's end of the handshake.
"""

import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import trustme

from benchmarks._processes import running_upstream
from benchmarks._upstream import HEAD_END, SMALL_RESPONSE

__all__ = ["TlsUpstream", "running_tls_upstream"]


@attrs.frozen
class TlsUpstream:
    """A running one; `config_file` is a runtime's configuration that trusts it."""

    url: str
    config_file: str


@contextmanager
def running_tls_upstream(*, core: int | None = None) -> Iterator[TlsUpstream]:
    """Make an authority and a certificate for localhost, and serve with it."""
    with tempfile.TemporaryDirectory(prefix="vastar-bench-") as folder:
        authority = trustme.CA()
        ca_file = Path(folder, "ca.pem")
        authority.cert_pem.write_to_path(str(ca_file))
        server_file = Path(folder, "server.pem")
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(server_file))
        config_file = Path(folder, "config.toml")
        config_file.write_text(f'[tls]\nca_file = "{ca_file}"\n', encoding="utf-8")
        module = "benchmarks._tls_upstream"
        with running_upstream(str(server_file), module=module, core=core) as url:
            yield TlsUpstream(url, str(config_file))


def _answer(accepted: socket.socket, context: ssl.SSLContext) -> None:
    """Serve one connection to its end, whatever that is."""
    with suppress(OSError), context.wrap_socket(accepted, server_side=True) as secure:
        head = b""
        while data := secure.recv(65_536):
            head += data
            if head.endswith(HEAD_END):
                secure.sendall(SMALL_RESPONSE)
                head = b""


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)


def main() -> None:
    """Listen on a free port of the loopback and serve until a signal ends it."""
    signal.signal(signal.SIGTERM, _end)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(f"https://localhost:{listener.getsockname()[1]}", flush=True)
        while True:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_answer, args=(accepted, context), daemon=True).start()


if __name__ == "__main__":
    main()
