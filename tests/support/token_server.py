"""A server of OAuth 2.0 tokens on the memory network, and files that configure credentials."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl

import attrs
import msgspec
import trio

from tests.support.policy_files import Tree, load_tree
from tests.support.running import URL
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.transport.memory import MemoryChannel

__all__ = ["TOKEN_PORT", "TOKEN_URL", "Asked", "TokenServer", "credentials", "oauth2"]

TOKEN_PORT = 4800
TOKEN_URL = f"http://127.0.0.1:{TOKEN_PORT}/token"


@attrs.frozen
class Asked:
    """One question for a token."""

    headers: Mapping[str, str]
    fields: Mapping[str, str]
    at_s: float


@attrs.define
class TokenServer:
    """Answers each question with token-1, token-2, ..., or as it is told.

    Attributes:
        asked: the questions so far.
        lifetime_s: of what it grants.
        delay_s: before each answer.
        refuse: status and body in place of a token.
        headers: sent with each answer.
    """

    asked: list[Asked] = attrs.field(factory=list)
    lifetime_s: float = 3600
    delay_s: float = 0
    refuse: tuple[int, bytes] | None = None
    headers: bytes = b""

    async def handle(self, channel: MemoryChannel) -> None:
        """Serve one connection."""
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                piece = await channel.receive_some()
                if not piece:
                    return
                data += piece
            head, _, data = data.partition(b"\r\n\r\n")
            request, *lines = head.decode().split("\r\n")
            assert request == "POST /token HTTP/1.1"
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            length = int(headers["content-length"])
            while len(data) < length:
                data += await channel.receive_some()
            fields = dict(parse_qsl(data[:length].decode(), strict_parsing=True))
            data = data[length:]
            self.asked.append(Asked(headers, fields, trio.current_time()))
            if self.delay_s:
                await trio.sleep(self.delay_s)
            status, body = self.refuse or (200, self._granted())
            await channel.send_buffers(
                [
                    b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n"
                    % (status, len(body), self.headers),
                    body,
                ]
            )

    def _granted(self) -> bytes:
        return msgspec.json.encode(
            {
                "access_token": f"planted-token-{len(self.asked)}",
                "token_type": "Bearer",
                "expires_in": self.lifetime_s,
            }
        )


def credentials(
    folder: Path,
    written: Tree,
    *,
    tenant: str = "acme",
    origin: str = URL,
    more: Tree | None = None,
) -> RuntimeConfig:
    """A configuration in which a tenant has this credential for an origin."""
    tree = {"tenants": {tenant: {"credentials": {origin: written}}}, **(more or {})}
    return load_tree(tree, folder).config


def oauth2(folder: Path, more: Tree | None = None, **keys: object) -> RuntimeConfig:
    """One in which the tenant `acme` has tokens for the upstream; `keys` as in a file."""
    (folder / "client-secret").write_text("planted-client-secret\n")
    written = {
        "token_url": TOKEN_URL,
        "client_id": "me",
        "client_secret": "${file:client-secret}",
        **keys,
    }
    return credentials(folder, {"oauth2": written}, more=more)
