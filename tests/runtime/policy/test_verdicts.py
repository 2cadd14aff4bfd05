"""What a refusal carries."""

import attrs
import pytest

from vastar_runtime.policy.verdicts import Refused, Scope


def test_a_refusal_says_who_and_when_and_cannot_be_changed():
    refused = Refused("rate_limit", Scope.TENANT, 1.5, "too many")
    assert (refused.policy, refused.scope.value, refused.retry_after_s) == (
        "rate_limit",
        "tenant",
        1.5,
    )
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        refused.retry_after_s = 0.0
