"""What plug-ins are written against."""

import pytest

from tests.support.plugins import Shout
from vastar_client.wire import Disposition, ErrorClass
from vastar_runtime.connectors.http import HttpConnector
from vastar_runtime.connectors.interface import (
    BlockingConnector,
    Connector,
    PluginAnswer,
    PluginCall,
    PluginError,
)
from vastar_runtime.connectors.plugins import PluginConnector


def _is_connector(connector: Connector) -> bool:
    return bool(connector)  # mypy holds the signature


def test_the_runtimes_own_connectors_and_plugins_are_one_thing():
    assert issubclass(HttpConnector, object)
    assert _is_connector(PluginConnector("shout", lambda: Shout, 1))
    assert isinstance(Shout(), BlockingConnector)
    assert not isinstance(object(), BlockingConnector)


def test_payloads_are_not_shown():
    call = PluginCall(operation="do", payload=b"hunter2", tenant_id="acme")
    assert "hunter2" not in repr(call) + repr(PluginAnswer(b"hunter2"))
    assert "do" in repr(call)
    assert not call.is_over()


def test_an_error_is_no_success():
    with pytest.raises(ValueError, match="SUCCESS"):
        PluginError("fine", ErrorClass.SUCCESS)
    assert PluginError("no").disposition is Disposition.SENT_NO_RESPONSE
