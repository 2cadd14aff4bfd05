"""Tables whose names the operator chooses, and keys that stand where they mean nothing."""

from pathlib import Path

import pytest

from vastar_runtime.config import ConfigError, LoadedConfig, load_config


def _load(tmp_path: Path, text: str) -> LoadedConfig:
    file = tmp_path / "vastar.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file=str(file), environ={})


def test_names_are_kept_and_origins_are_normalised(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        """
        [tenants."a.b \\n".retry]
        attempts = 5
        [tenants."".workspaces."".bulkhead]
        max_per_origin = 3
        [origins."HTTPS://API.Example.com:443".retry]
        base_s = 1
        """,
    )
    config = loaded.config
    assert config.tenants["a.b \n"].policies == {"retry": {"attempts": 5}}
    assert config.tenants[""].workspaces == {"": {"bulkhead": {"max_per_origin": 3}}}
    assert config.origins == {"https://api.example.com": {"retry": {"base_s": 1.0}}}
    assert list(loaded.sources) == [
        'tenants."a.b \\n".retry.attempts',
        'tenants."".workspaces."".bulkhead.max_per_origin',
        'origins."https://api.example.com".retry.base_s',
    ]


def test_a_place_that_says_nothing_is_none(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "[tenants.a.retry]\n[tenants.b.workspaces.w]\n[origins]\n")
    assert (loaded.config.tenants, loaded.config.origins) == ({}, {})


_BAD = [
    (
        "[retry]\nattempts = 3",
        "retry: it means nothing here; write it in [defaults.retry]",
    ),
    (
        "[workspaces.w.retry]",
        "workspaces: it means nothing here; write it in [tenants.NAME.workspaces.NAME.POLICY]",
    ),
    (
        "[tenants.a.bulkhead]\nmax_in_runtime = 3",
        (
            "tenants.a.bulkhead.max_in_runtime: it means nothing here; write it in "
            "[defaults.bulkhead]"
        ),
    ),
    (
        "[tenants.a.workspaces.w.queue]\ntenant_weight = 3",
        (
            "tenants.a.workspaces.w.queue: it means nothing here; write it in [defaults.queue] or "
            "[tenants.NAME.queue]"
        ),
    ),
    (
        "[tenants.a.origin_rate_limit]\nlimit = 3",
        (
            "tenants.a.origin_rate_limit.limit: it means nothing here; write it in "
            '[defaults.origin_rate_limit] or [origins."https://HOST".origin_rate_limit]'
        ),
    ),
    (
        '[origins."https://h".breaker]\nmode = "on"',
        (
            'origins."https://h".breaker.mode: "on" is not known; give one of "enforce", '
            '"observe", "off"'
        ),
    ),
    (
        "[tenants.a.retry]\natempts = 3",
        'tenants.a.retry.atempts: unknown key; remove it; did you mean "attempts"?',
    ),
    (
        "[tenants.a.worskpaces.w]",
        'tenants.a.worskpaces: unknown key; remove it; did you mean "workspaces"?',
    ),
    (
        "tenants.a = 3",
        "tenants.a: 3 is not a table; write [tenants.a]",
    ),
    (
        "origins = 3",
        "origins: 3 is not a table; write [origins]",
    ),
    (
        '[origins."api.test".retry]',
        'origins."api.test": it has no scheme; write "https://api.test"',
    ),
    (
        '[origins."https://u:hunter2@h".retry]',
        (
            'origins."[redacted]": it has a user part; leave that out: write scheme://host or '
            'scheme://host:port, such as "https://api.example.com"'
        ),
    ),
    (
        f'[tenants."{"x" * 1025}".retry]',
        (
            f'tenants."{"x" * 80}... (945 more characters)": the name has 1025 characters; give '
            "one of at most 1024, as callers may send"
        ),
    ),
    (
        '[origins."https://h".retry]\n[origins."HTTPS://h:443".cooldown]',
        (
            'origins."HTTPS://h:443": it is the same as "https://h"; write all of it in one of '
            "the two"
        ),
    ),
]


@pytest.mark.parametrize(("text", "message"), _BAD)
def test_what_cannot_stand_there_is_refused_with_its_remedy(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert str(caught.value) == f"{tmp_path}/vastar.toml: {message}"


def test_everything_wrong_below_a_bad_name_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, '[origins."h".retry]\nattempts = 0\nx = 1\n')
    assert [problem.key for problem in caught.value.problems] == [
        "origins.h",
        "origins.h.retry.x",
        "origins.h.retry.attempts",
    ]
