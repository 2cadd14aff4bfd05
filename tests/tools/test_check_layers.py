"""The direction of imports holds in this tree, and each way of breaking it is seen."""

from pathlib import Path

import pytest

from tools import check_layers

POLICY = "vastar_runtime.policy.retry"
KNOWN = frozenset({"vastar_runtime.session", "vastar_client.wire._generated", "vastar_client.wire"})


def test_this_tree_keeps_the_direction() -> None:
    assert check_layers.faults_of_tree(check_layers.ROOT) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("vastar_runtime.outbox", "import vastar_runtime.session", "(level 40"),
        ("vastar_runtime.outbox", "from vastar_runtime import session", "(level 40"),
        ("vastar_runtime.outbox", "from . import session", "(level 40"),
        ("vastar_runtime.outbox", "from .session import Session as S", "(level 40"),
        ("vastar_runtime.dispatch", "from vastar_runtime.outbox import x", "from level 30"),
        ("vastar_runtime.pipeline.order", "from ..connectors import http", "from level 20"),
        ("vastar_runtime.outbox", "def f():\n    import vastar_runtime.cli.x", ":2: "),
        (
            "vastar_runtime.outbox",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vastar_runtime.server",
            ":3: ",
        ),
        ("vastar_runtime.session", "from vastar_client import errors", "wire only"),
        ("vastar_runtime.session", "from vastar_client import RuntimeClient", "wire only"),
        ("vastar_runtime.session", "import vastar_runtime.nowhere", "no room of the table"),
        ("vastar_runtime.nowhere", "", "is in no room"),
        ("vastar_client.nowhere", "", "is in no room"),
        ("vastar_client.errors", "import vastar_runtime", "without the runtime"),
        ("vastar_client.errors", "import httpcore", "stays small"),
        ("vastar_client.errors", "from structlog import get_logger", "stays small"),
        ("vastar_client.wire.state", "import trio.testing", "no I/O"),
        ("vastar_client.wire.state", "from time import monotonic", "read no clock"),
        (POLICY, "import anyio", "no I/O"),
        (POLICY, "import time", "read no clock"),
        (POLICY, "from vastar_client.wire import ErrorClass", "know no wire"),
        (POLICY, "import random\nx = random.random()", ":2: calls random.random"),
        (POLICY, "from random import uniform", "takes uniform from random"),
        (POLICY, "import datetime\nx = datetime.datetime.now()", "the time is an argument"),
        (POLICY, "import uuid\nx = uuid.uuid4()", "calls uuid.uuid4"),
        ("vastar_runtime.connectors.http", "import httptools", "only transport"),
        ("vastar_runtime.connectors.http", "def f():\n    from httpcore import URL", ":2: "),
        ("vastar_runtime.transport.http1", "import h11", "only the metrics listener"),
        ("vastar_runtime.metrics.meters", "import prometheus_client", "when somebody scrapes"),
        ("vastar_runtime.session", "import vastar_client.wire._generated", "for the codec"),
        ("vastar_runtime.session", "from vastar_client.wire import _generated", "for the codec"),
        ("vastar_client.wire.state", "from . import _generated", "for the codec"),
        ("tools.fuzzer", "from vastar_client.wire import _generated", "for the codec"),
        ("vastar_runtime.session", "import tests.support", "rest of the repository"),
        ("vastar_client.errors", "import tools.dev", "rest of the repository"),
    ],
)
def test_a_planted_violation_is_named(module: str, source: str, complaint: str) -> None:
    faults = check_layers.faults_in(module, source, known=KNOWN)
    assert len(faults) == 1
    assert faults[0].startswith(f"{module}:")
    assert complaint in faults[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vastar_runtime.session", "from vastar_runtime.outbox import Outbox"),
        ("vastar_runtime.session", "from vastar_client.wire import Connection"),
        ("vastar_runtime.session", "import vastar_client.wire.enums, trio, time"),
        ("vastar_runtime.transport.pool", "import httptools, httpcore, trio, time"),
        ("vastar_runtime.connectors.http", "from .other import x\nfrom . import other"),
        (POLICY, "import random\ndef f(r: random.Random) -> float:\n    return r.random()"),
        (POLICY, "from datetime import datetime\nx = datetime.fromisoformat('2025-01-01')"),
        ("vastar_client.wire.codec", "from vastar_client.wire import _generated"),
        ("tests.client.test_x", "from vastar_client.wire import _generated"),
        ("tools.anything", "import vastar_runtime.server, vastar_client"),
    ],
)
def test_what_the_rules_allow_passes(module: str, source: str) -> None:
    assert check_layers.faults_in(module, source, known=KNOWN) == []


def test_a_relative_import_of_a_package_file_counts_from_the_package() -> None:
    faults = check_layers.faults_in(
        "vastar_runtime.pipeline", "from ..session import x", is_package=True
    )
    assert len(faults) == 1
    assert "imports vastar_runtime.session" in faults[0]
    assert not check_layers.faults_in(
        "vastar_runtime.pipeline", "from .x import y", is_package=True
    )


def test_a_tree_is_read_with_its_package_files(tmp_path: Path) -> None:
    package = tmp_path / "vastar_client" / "wire"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from ..errors import Closed\n")
    (package / "_generated.py").write_text("import trio\n")
    (faults,) = check_layers.faults_of_tree(tmp_path)
    assert faults.startswith("vastar_client.wire:1: imports vastar_client.errors (level 10")


def test_every_room_says_why() -> None:
    assert all(room.why for room in check_layers.ROOMS)
    names = [name for room in check_layers.ROOMS for name in room.modules]
    assert len(names) == len(set(names))
