"""What a statement may leave behind in the session it ran in, found by a look at its text.

A session is used by one call after the other, and what a call set, locked, created or listened to
must not reach the next. The server undoes it all (DISCARD ALL) where it is told to. Telling it
after each statement would cost a round trip, so it is told where a statement may have left
something, and in doubt it may have:

- its command tag, which comes with the result, is none of those that read and change rows; or
- a word in its text, wherever that stands, names a function of the server's that changes a
  session, runs SQL that is given to it as text, or makes something temporary; or
- it calls a function that is not known here to leave nothing.

What no text shows is what functions of the database's owner do that a trigger, a view, a default,
a cast or an operator calls. Where these change sessions, the data source says `reset = "always"`.
"""

import re
from typing import Final

__all__ = ["controls", "gives_no_rows", "leaves_nothing", "may_leave"]

_PLAIN_TAGS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "SHOW"})

_WORD: Final = re.compile(r"[^\W\d][\w$]*")
_SUSPICIOUS: Final = re.compile(
    r"set_config|setseed|setval|temp|temporary|pg_temp\w*|pg_(try_)?advisory_lock(_shared)?"
    r"|query_to_xml\w*|cursor_to_xml\w*|ts_stat|ts_rewrite|lo_\w+|dblink\w*|prepare"
    r"|pg_replication_origin_\w+|pg_create_\w*replication_slot|pg_copy_\w*replication_slot"
    r"|pg_export_snapshot|execute|crosstab\w*|connectby|xpath_table"
)
_ESCAPED: Final = re.compile(r"\bu&[\"']", re.IGNORECASE)
"""Text in which a letter may stand as its number."""

_CALL: Final = re.compile(r"((?<![\w$])[\w$]++|\")\s*+\(")
_BEHIND_COMMENT: Final = re.compile(r"\*/\s*+\(")
_AFTER_LINE: Final = re.compile(r"\n\s*+\(")
_TARGET: Final = re.compile(
    r"\b(?:into|with(?:\s+recursive)?)\s+(?:[\w.]|\"[^\"]*+\")++\s*+\(", re.IGNORECASE
)
_MAX_CHARS: Final = 100_000
"""Of longer ones nobody looks for calls: one round trip more is not noticed there."""

_OF_THE_LANGUAGE: Final = """
all and any array as asc at bernoulli between bigint bit bool boolean both by bytea case cast char
character check coalesce collate conflict cross cube current current_date current_time
current_timestamp date decimal delete desc distinct do double else end except exists extract false
fetch filter first float following for from full greatest group grouping having ilike in inner
insert int integer intersect interval into is join json jsonb key last lateral leading least left
like limit localtime localtimestamp locked materialized natural next not nowait null nullif nulls
numeric of offset on only or order ordinality outer over overlaps overlay partition position
preceding precision range real recursive returning returns right rollup row rows select set sets
share similar skip smallint some substring symmetric system table tablesample text then ties time
timestamp timestamptz to trailing treat trim true unbounded union unique update using uuid values
varchar varying when where window with within without xmlelement zone
"""
"""What a parenthesis may follow without that being a call."""

_FUNCTIONS: Final = """
abs age any_value array_agg array_append array_cat array_length array_lower array_ndims
array_position array_positions array_prepend array_remove array_replace array_to_json
array_to_string array_upper ascii avg bit_and bit_length bit_or bit_xor bool_and bool_or bpchar
btrim cardinality cbrt ceil ceiling char_length character_length chr clock_timestamp concat
concat_ws convert_from convert_to corr count covar_pop covar_samp cume_dist current_catalog
current_database current_query current_schema current_schemas current_setting current_user
date_bin date_part date_trunc decode degrees dense_rank div encode every exp factorial first_value
float4 float8 floor format format_type gcd gen_random_uuid generate_series generate_subscripts
get_bit get_byte has_table_privilege hashtext host initcap int2 int4 int8 isfinite json_agg
json_array_elements json_array_elements_text json_array_length json_build_array json_build_object
json_each json_each_text json_extract_path json_extract_path_text json_object json_object_agg
json_object_keys json_populate_record json_populate_recordset json_strip_nulls json_to_record
json_to_recordset json_typeof jsonb_agg jsonb_array_elements jsonb_array_elements_text
jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text
jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg
jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array
jsonb_path_query_first jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set
jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof justify_days justify_hours
justify_interval lag last_value lcm lead length ln log log10 lower lpad ltrim make_date
make_interval make_time make_timestamp make_timestamptz max md5 min mod mode now nth_value ntile
num_nonnulls num_nulls octet_length parse_ident percent_rank percentile_cont percentile_disc
pg_advisory_xact_lock pg_backend_pid pg_client_encoding pg_column_size pg_get_constraintdef
pg_get_expr pg_get_indexdef pg_get_serial_sequence pg_get_viewdef pg_is_in_recovery
pg_relation_size pg_sleep pg_table_size pg_total_relation_size pg_try_advisory_xact_lock pg_typeof
phraseto_tsquery pi plainto_tsquery power quote_ident quote_literal quote_nullable radians random
rank regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
regexp_split_to_array regexp_split_to_table regexp_substr regr_slope repeat replace reverse round
row_number row_to_json rpad rtrim scale session_user setweight sha224 sha256 sha384 sha512 sign
split_part sqrt statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array
string_to_table strpos substr sum timeofday to_char to_date to_hex to_json to_jsonb to_number
to_timestamp to_tsquery to_tsvector transaction_timestamp translate trunc ts_headline ts_rank
ts_rank_cd unnest upper user var_pop var_samp variance version websearch_to_tsquery width_bucket
xmlagg
"""
"""Of the server: they give a value and do nothing else."""

_LEAVE_NOTHING: Final = frozenset(f"{_OF_THE_LANGUAGE} {_FUNCTIONS}".split())

_CHANGE: Final = re.compile(r"\s*(?:insert|update|delete|merge)\b", re.IGNORECASE)

_BEGIN: Final = re.compile(
    r"(?:\s|;|--[^\n]*(?:\n|$)|/\*(?:[^*]|\*(?!/))*\*/)*"
    r"(?:begin|start\s+transaction|commit|end|rollback|abort|prepare\s+transaction)\b",
    re.IGNORECASE,
)


def may_leave(text: str) -> bool:
    """Whether a statement of rows may change its session, by its text."""
    if len(text) > _MAX_CHARS or _ESCAPED.search(text) is not None:
        return True
    if any(_SUSPICIOUS.fullmatch(word.lower()) for word in _WORD.findall(text)):
        return True
    # A comment may stand between a name and its parenthesis.
    if _BEHIND_COMMENT.search(text) is not None:
        return True
    if "--" in text and _AFTER_LINE.search(text) is not None:
        return True
    called = _CALL.findall(_TARGET.sub("(", text))
    return not all(each.isdigit() or each.lower() in _LEAVE_NOTHING for each in called)


def leaves_nothing(tag: str) -> bool:
    """Whether statements with this command tag leave nothing but what `may_leave` finds."""
    return tag in _PLAIN_TAGS


def controls(text: str) -> bool:
    """Whether it begins as a statement that begins or ends a transaction does.

    The server's command tag has the last word; what is seen here is not even sent.
    """
    return _BEGIN.match(text) is not None


def gives_no_rows(text: str) -> bool:
    """Whether it is certainly one that changes rows and gives none."""
    return _CHANGE.match(text) is not None and "returning" not in text.lower()
