"""The tables of the behaviour store, and the question for one shopper's past."""

from reranker.schema import EventKind

SCHEMA_VERSION = "1"
KEY_PROBE = "hash('shelfwise')"
# DuckDB's own choice for product ids is a dictionary, of which every look-up would unpack a whole
# one: 0.7 of 1.6 ms at ten million events. This way the file grows by a tenth.
EVENT_TABLE = """(user_key UBIGINT NOT NULL, user_id VARCHAR NOT NULL, kind event_kind NOT NULL,
    "at" TIMESTAMP NOT NULL, product_id VARCHAR USING COMPRESSION zstd, query VARCHAR,
    session_id VARCHAR, request_id VARCHAR, position INTEGER, dwell_ms BIGINT,
    quantity DOUBLE, value DOUBLE)"""
STORE_DDL = f"""
    CREATE TYPE event_kind AS ENUM ({", ".join(f"'{kind}'" for kind in EventKind)});
    CREATE TABLE event {EVENT_TABLE};
    CREATE TABLE meta (schema_version VARCHAR, key_probe UBIGINT, runs DOUBLE);
    INSERT INTO meta VALUES ('{SCHEMA_VERSION}', {KEY_PROBE}, 0);
"""
# The only door from events to profiles: whatever they read lies strictly before the moment asked.
PAST = '(SELECT * FROM event WHERE "at" < $as_of)'
HISTORY = f"""SELECT kind::VARCHAR, epoch_us("at"), product_id, query FROM {PAST}
    WHERE user_key = hash($user_id) AND user_id = $user_id AND kind <> 'impression'
    ORDER BY "at" DESC, kind DESC, product_id, query LIMIT $limit"""
