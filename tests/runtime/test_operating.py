"""The page for operators: its tables are whole, its numbers the defaults, its commands exist."""

import re
from itertools import product
from pathlib import Path

import pytest

from tests.support.metrics_text import Scraped
from tests.support.snippets import fences
from vastar_runtime.cli._main import _parser
from vastar_runtime.config import (
    CredentialConfig,
    EgressConfig,
    OAuth2Config,
    PoliciesConfig,
    load_config,
    texts_of,
)
from vastar_runtime.config._changes import _APPLIED_KEYS
from vastar_runtime.metrics import (
    SERIES_CAP,
    BreakerRow,
    DatabaseRow,
    LimiterRow,
    Meters,
    PoolRow,
    QuotaRow,
    Snapshot,
    VerdictRow,
)
from vastar_runtime.pipeline import DESCRIPTOR
from vastar_runtime.policy.addresses import _INSIDE
from vastar_runtime.policy.admission import AdmissionSettings
from vastar_runtime.policy.breaker import BreakerSettings, State
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.header_learning import HeaderSettings
from vastar_runtime.policy.hedging import HedgeSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.retry import Reason, RetrySettings
from vastar_runtime.policy.retry_quota import QuotaSettings
from vastar_runtime.workers.fleet import FleetSettings
from vastar_runtime.workers.questions import RELOAD_STEP_S, STATUS_S, TEAM_METRICS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "vastar_runtime" / "OPERATING.md"
PAGE = FILE.read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the first table in `text`, without its head."""
    lines = text[text.index("\n|") :].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_order_is_the_one_that_is_composed():
    (shown,) = [fence.text for fence in fences(FILE) if fence.language == "text"]
    assert shown.strip() == " > ".join(DESCRIPTOR)


def test_the_table_of_defaults_names_every_policy():
    told = {name for row in rows(section("What a call goes through")) for name in quoted(row[0])}
    limits = {f"{whose}_{kind}_limit" for whose, kind in product(LEVELS, ("rate", "token", "byte"))}
    assert told | limits == set(PoliciesConfig.__struct_fields__)
    assert PoliciesConfig().hedging.mode == "off"
    assert PoliciesConfig().attempt.timeout_s is None


LEVELS = ("workspace", "tenant", "origin")


def defaults() -> list[str]:
    """Sentences made of the defaults, which the page has to contain."""
    retry, quota, breaker = RetrySettings(), QuotaSettings(), BreakerSettings()
    cooldown, places = CooldownSettings(), AdmissionSettings().concurrency
    learning, hedging = HeaderSettings(), HedgeSettings()
    most = quota.most_tokens // quota.transient_cost
    return [
        (
            f"{places.max_per_origin} calls at once for each tenant, workspace and origin, "
            f"{places.max_per_tenant} for each tenant, {places.max_in_runtime} in all"
        ),
        f"in line, {AdmissionSettings().max_waiting_per_tenant} of each tenant",
        f"{retry.attempts} attempts in all",
        f"after about {most} that failed",
        f"some {most} retries",
        f"One purse of {quota.most_tokens} tokens",
        f"A retry costs {quota.transient_cost}, after a 429 it costs {quota.throttled_cost}",
        f"earns {quota.earned_per_success}",
        (
            f"of at least {breaker.min_calls} calls within {breaker.window_s:g} s failed, or "
            f"{breaker.no_answer_run} calls in a row"
        ),
        f"open for {breaker.open_s / 2:g} to {breaker.open_s:g} s",
        f"up to {breaker.open_max_s:g} s. 4xx",
        f"at most {cooldown.hinted_max_s:g} s, and up to {cooldown.jitter_ratio:.0%} more",
        f"up to {cooldown.base_s:g} s, doubling up to {cooldown.unhinted_max_s:g} s",
        f"takes at most {learning.max_wait_s:g} s",
        f"lowers it to {learning.aimd.decrease_ratio:.0%} of what it was",
        f"each success gives {learning.aimd.increase_ratio:.1%} of the whole back",
        f"`budget_ratio` ({hedging.budget_ratio:g})",
        (
            f"`period_s` ({PoliciesConfig().rate_limit.period_s:g} s; for tokens and bytes "
            f"{PoliciesConfig().byte_limit.period_s:g} s)"
        ),
        f"shows {SERIES_CAP} at most",
    ]


@pytest.mark.parametrize("sentence", defaults())
def test_numbers_are_the_defaults(sentence):
    assert sentence in PROSE


def test_the_circuit_is_right_about_half():
    assert BreakerSettings().failure_ratio == 0.5
    assert BreakerSettings().probes == BreakerSettings().successes_to_close == 1


def test_the_table_of_refusals_is_whole():
    """Every pair of policy and scope that can be, as the policies and the sources have them."""
    told = {name for row in rows(section("Who refused, and what to do")) for name in quoted(row[0])}
    scopes = (*LEVELS, "credential")
    can_be = {
        *(f"{kind}_limit:{scope}" for kind, scope in product(("rate", "token", "byte"), scopes)),
        *(f"bulkhead:{scope}" for scope in ("runtime", "tenant", "credential")),
        *("queue:tenant", "retry_quota:tenant"),
        *("learned_limit:credential", "cooldown:credential"),
        *("circuit_breaker:origin", "circuit_breaker:tenant"),
        *("egress_guard:tenant", "egress_guard:runtime"),
    }
    sources = (ROOT / "vastar_runtime").rglob("*.py")
    can_be |= {n for f in sources for n in re.findall(r'refused_by="(\w+:\w+)"', f.read_text())}
    assert told == can_be


def test_the_table_of_egress_rules_names_the_keys_and_what_addresses_are():
    told = {name for row in rows(section("Where calls may go")) for name in quoted(row[0])}
    keys = set(EgressConfig.__struct_fields__) - {"mode", "addresses", "allow_ranges"}
    assert keys <= told
    assert {rule for _, _, rule in _INSIDE} <= told | {"nat64"}
    assert f'`addresses = "{EgressConfig().addresses}"`' in PROSE


def busy_metrics() -> Scraped:
    """A text in which every metric has a series."""
    meters = Meters(["http"])
    meters.call_ended(
        "http", "SUCCESS", "COMPLETED", "upstream", duration_s=1.0, first_byte_s=0.1, attempts=1
    )
    meters.retried("transient")
    meters.refused("rate_limit", "tenant")
    meters.waited("queue", 1.0)
    meters.hedged("won")
    snapshot = Snapshot(
        breakers=(BreakerRow("tenant", "acme", "https://x", State.OPEN),),
        quotas=(QuotaRow("acme", "https://x", 1, 500),),
        limiters=(LimiterRow("rate_limit", "tenant", 1),),
        pools=(PoolRow("acme", "", "https://x", 1, 1, 1),),
        databases=(DatabaseRow("acme", "orders", "postgres://x:1", 1, 1, 1),),
        verdicts=(VerdictRow("retry", Mode.ENFORCE, 1, 1, 1),),
    )
    return Scraped(meters.render(snapshot))


def test_the_table_of_metrics_is_whole():
    found = {}
    for name, family in busy_metrics().families.items():
        assert family.samples, name
        found[name] = sorted({label for s in family.samples for label in s.labels} - {"le"})
    told = {quoted(row[0])[0]: sorted(quoted(row[1])) for row in rows(section("Metrics"))}
    assert told == found


def test_every_metric_in_the_prose_is_one():
    told = set(re.findall(r"\bvastar_(?!client|runtime)\w+", PAGE))
    assert told - set(TEAM_METRICS) <= busy_metrics().families.keys()
    assert set(TEAM_METRICS) <= told


def test_reasons_are_named_as_metrics_name_them():
    (row,) = [r for r in rows(section("Metrics")) if "given_up" in r[0]]
    assert set(quoted(row[2])) < {reason.value for reason in Reason}


def test_what_a_reload_takes_up_at_once():
    (line,) = re.findall(r"- At once: (.*?)\. After a restart", PROSE)
    named = {key.removesuffix(".*") for key in quoted(line)}
    assert named == {".".join(path) if path[0] != "log" else "log" for path in _APPLIED_KEYS}


@pytest.mark.parametrize(
    "fence", [f for f in fences(FILE) if f.language == "toml"], ids=lambda f: f"line {f.line}"
)
def test_configuration_files_are_accepted(fence, tmp_path):
    file = tmp_path / "vastar.toml"
    file.write_text(fence.text)
    config = load_config(file=str(file), environ={}).config
    assert config.tenants or config.origins or config.plugins.load


def test_commands_exist():
    lines = [line for f in fences(FILE) if f.language == "sh" for line in f.text.splitlines()]
    commands = [line.partition("#")[0].split() for line in lines if line.startswith("vastar ")]
    assert {command[1] for command in commands} == {"check-config", "reload", "serve", "status"}
    for command in commands:
        _parser().parse_args(command[1:])
    assert len(lines) == len(commands) + 1, "and curl"


def test_every_block_has_a_language_that_is_looked_at():
    assert {f.language for f in fences(FILE)} == {"text", "sh", "toml"}
    assert PAGE.count("```") == 2 * len(fences(FILE))


def test_links_and_anchors_exist():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        name, _, anchor = target.partition("#")
        page = (FILE.parent / name).read_text(encoding="utf-8") if name else PAGE
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert not anchor or anchor in slugs, target


def test_the_times_of_workers_are_the_programs():
    told = " ".join(section("Workers").split())
    times = FleetSettings()
    for words in (
        f"at most {times.backoff.base_s} s",
        f"up to {times.backoff.cap_s:.0f} s",
        f"after {times.healthy_s:.0f} s of service",
        f"the drain time and {times.grace_s:.0f} s",
        f"answer within {RELOAD_STEP_S:.0f} s",
        f"anything within {STATUS_S:.0f} s",
    ):
        assert words in told


def test_the_keys_of_credentials_are_all_there_and_the_example_loads(tmp_path):
    text = section("Credentials")
    named = {key for keys, _ in rows(text) for key in quoted(keys)}
    known = {*CredentialConfig.__struct_fields__} - {"oauth2"}
    assert named == known | {f"oauth2.{key}" for key in OAuth2Config.__struct_fields__}
    (example,) = [each.text for each in fences(FILE) if "oauth2]" in each.text]
    file = tmp_path / "vastar.toml"
    file.write_text(example)
    acme = load_config(file=str(file), environ={}).config.tenants["acme"]
    assert texts_of(acme.credentials["https://api.openai.com"]) == {
        "Authorization": "Bearer ${file:/run/secrets/openai}"
    }
    assert OAuth2Config().client_auth == "basic"
    assert OAuth2Config().timeout_s == 10
