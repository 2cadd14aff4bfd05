"""Bytes to HTTP upstreams: connection pools, HTTP/1.1, TLS, proxies, and a scripted fake.

```python
transport = HttpTransport(TransportSettings())
progress = Progress()  # readable also after a cancellation
async with await transport.request(("tenant", "workspace"), request, progress) as response:
    while piece := await response.read_some(): ...
```
"""

from vastar_runtime.transport.bodies import REPLAY_BYTES, StreamedBody
from vastar_runtime.transport.channel import Channel, SocketChannel, StreamChannel
from vastar_runtime.transport.client import HttpTransport, Place, PoolStatus
from vastar_runtime.transport.dialing import AddressCheck, Scope
from vastar_runtime.transport.errors import (
    BodyAborted,
    BodyTooLarge,
    ChannelStalled,
    FaultKind,
    LocalFault,
    TransportError,
)
from vastar_runtime.transport.messages import (
    Body,
    BodySource,
    Buffer,
    Headers,
    Origin,
    UpstreamRequest,
    rewind,
)
from vastar_runtime.transport.network import Address, Network, SystemNetwork, is_own_address
from vastar_runtime.transport.progress import Phase, Progress
from vastar_runtime.transport.response import UpstreamResponse
from vastar_runtime.transport.settings import (
    ProxySettings,
    RouteSettings,
    TlsSettings,
    TransportSettings,
)

__all__ = [
    "REPLAY_BYTES",
    "Address",
    "AddressCheck",
    "Body",
    "BodyAborted",
    "BodySource",
    "BodyTooLarge",
    "Buffer",
    "Channel",
    "ChannelStalled",
    "FaultKind",
    "Headers",
    "HttpTransport",
    "LocalFault",
    "Network",
    "Origin",
    "Phase",
    "Place",
    "PoolStatus",
    "Progress",
    "ProxySettings",
    "RouteSettings",
    "Scope",
    "SocketChannel",
    "StreamChannel",
    "StreamedBody",
    "SystemNetwork",
    "TlsSettings",
    "TransportError",
    "TransportSettings",
    "UpstreamRequest",
    "UpstreamResponse",
    "is_own_address",
    "rewind",
]
