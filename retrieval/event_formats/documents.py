"""Event logs as documents: whatever the file, each of its records becomes one JSON text.

The copy is Parquet with the columns ``document`` and ``fault``, in the order of the records, so
that a record's number is its place in the copy.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from retrieval.event_formats.sql import LINE_FAULT, lines, literal, quoted, source
from retrieval.files import is_zipped

_SAMPLE = 1000
_LARGEST_OBJECT = 1 << 28
_BULK_ACTIONS = ("index", "create", "update", "delete")


def copy_lines(connection: duckdb.DuckDBPyConnection, path: Path, copy: Path) -> None:
    """Copy JSON lines."""
    _copy(
        connection,
        f"""SELECT line AS document, {LINE_FAULT} AS fault FROM {lines(path)}
        WHERE fault IS DISTINCT FROM 'blank'""",
        copy,
    )


def copy_json(connection: duckdb.DuckDBPyConnection, path: Path, copy: Path) -> None:
    """Copy a JSON file: a document, a list of them, or the response to a search for them."""
    compression = "gzip" if is_zipped(path) else "none"
    _copy(
        connection,
        f"""SELECT unnest(CASE WHEN json_type(json, '$.hits.hits') = 'ARRAY'
            THEN json_extract(json, '$.hits.hits[*]') ELSE [json] END)::VARCHAR AS document,
        NULL::VARCHAR AS fault
        FROM read_json_objects({source(path)}, format = 'auto', compression = '{compression}',
            maximum_object_size = {_LARGEST_OBJECT})""",
        copy,
    )


def copy_table(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    columns: Sequence[tuple[str, str]],
    copy: Path,
) -> None:
    """Copy the rows of a table, each as an object of its columns.

    Args:
        connection: of the store.
        relation: to read from.
        columns: SQL of each value, and its name in the object.
        copy: the file to write.
    """
    packed = ", ".join(f"{quoted(name)} := {value}" for value, name in columns)
    _copy(
        connection,
        f"""SELECT to_json(struct_pack({packed}))::VARCHAR AS document, NULL::VARCHAR AS fault
        FROM {relation}""",
        copy,
    )


def sample_names(connection: duckdb.DuckDBPyConnection, relation: str, column: str) -> list[str]:
    """Return the keys of the first documents of a relation, also of those wrapped or in lists."""
    rows = connection.execute(
        f"""SELECT DISTINCT unnest(json_keys(inner_document)) FROM (
            SELECT coalesce(json_extract(each, '$._source'), each) AS inner_document FROM (
                SELECT unnest(CASE WHEN json_type({column}) = 'ARRAY'
                    THEN json_extract({column}, '$[*]') ELSE [{column}::JSON] END) AS each
                FROM (SELECT {column} FROM {relation} LIMIT {_SAMPLE})
                WHERE json_valid({column})) WHERE json_type(each) = 'OBJECT')
            ORDER BY 1"""
    ).fetchall()
    return [str(row[0]) for row in rows]


def documents(copy: Path) -> str:
    """Return the relation of a copy's documents: ``source_row``, ``document`` and ``fault``.

    A list holds several documents; ``_source`` is unwrapped; the action lines of the bulk format
    are passed over.
    """
    bulk = ", ".join(f"['{action}']" for action in _BULK_ACTIONS)
    attributes = "json_extract_string(document, '$.event_attributes')"
    return f"""(
        SELECT source_row,
            CASE WHEN json_type(document, '$.event_attributes') = 'VARCHAR'
                    AND json_valid({attributes})
                THEN json_merge_patch(document, json_object('event_attributes',
                    {attributes}::JSON))::VARCHAR
                ELSE document END AS document,
            coalesce(fault, CASE WHEN json_type(document) <> 'OBJECT'
                THEN 'not a JSON object' END) AS fault
        FROM (
            SELECT source_row, fault, coalesce(CASE WHEN fault IS NULL
                THEN json_extract(document, '$._source')::VARCHAR END, document) AS document
            FROM (
                SELECT source_row, fault, unnest(CASE
                    WHEN fault IS NULL AND json_type(document) = 'ARRAY'
                    THEN json_extract(document, '$[*]')::VARCHAR[]
                    ELSE [document] END) AS document
                FROM (SELECT file_row_number + 1 AS source_row, fault,
                        CASE WHEN fault IS NULL THEN document ELSE '{{}}' END AS document
                    FROM read_parquet({source(copy)}, file_row_number = true))))
        WHERE NOT coalesce(json_keys(document) IN ({bulk}), false))"""


def _copy(connection: duckdb.DuckDBPyConnection, query: str, copy: Path) -> None:
    connection.execute(f"COPY ({query}) TO {literal(copy)} (FORMAT parquet)")
