"""The defaults of the policies are the published ones, and their ranges have room for them."""

from pathlib import Path

import msgspec
import pytest

from vastar_runtime.config import ConfigError, PoliciesConfig, RuntimeConfig, load_config
from vastar_runtime.config._policies import EVERYWHERE, PLACES
from vastar_runtime.config._schema import policy_leaves


def test_the_numbers_of_the_published_table() -> None:
    """DEFAULTS.md; `test_policy_book` holds all of them equal to those of the policy room."""
    config = PoliciesConfig()
    assert config.retry.attempts == 3
    assert (config.breaker.failure_ratio, config.breaker.min_calls) == (0.5, 20)
    assert config.bulkhead.max_in_runtime == 1000
    assert config.rate_limit.limit is None
    assert config.hedging.mode == "off"


def test_nothing_is_written_anywhere_by_default() -> None:
    config = RuntimeConfig()
    assert (config.tenants, config.origins) == ({}, {})


def test_the_defaults_are_in_range() -> None:
    defaults = msgspec.to_builtins(PoliciesConfig())
    assert msgspec.convert(defaults, PoliciesConfig) == PoliciesConfig()


def test_all_keys_are_there_in_the_defaults() -> None:
    leaves = policy_leaves("defaults")
    for policy, keys in leaves.items():
        assert set(keys) == set(getattr(PoliciesConfig(), policy).__struct_fields__)
    assert set(PLACES) == set(EVERYWHERE)


def test_a_not_set_number_is_left_out_and_cannot_be_written(tmp_path: Path) -> None:
    """TOML has no null; 0 turns a time off that a stronger place would inherit."""
    file = tmp_path / "c.toml"
    file.write_text("[defaults.attempt]\ntimeout_s = 0\n[defaults.breaker]\nslow_call_s = 0\n")
    config = load_config(file=str(file), environ={}).config
    assert config.defaults.attempt.timeout_s == 0
    file.write_text("[defaults.rate_limit]\nlimit = 0\n")
    with pytest.raises(ConfigError, match="0 is out of range; give a whole number from 1"):
        load_config(file=str(file), environ={})
