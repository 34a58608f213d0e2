"""Forgets a shopper: every trace in the store, and in what was derived of it.

Out of reach, and said so: the files that events were imported from, backups, and blocks of a disk
that the file system has freed but not overwritten.
"""

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa
from pydantic import Field

from reranker.ports import Progress, no_progress
from reranker.schema import Value
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.privacy.traces import TrainedModel, take_out, written_profiles

_REMINDERS = (
    "the files that were imported: delete the shopper there, too, or the next import of them "
    "brings everything back",
    "backups and snapshots of the store, of its disk, and of the models; of behaviour in "
    "PostgreSQL, its write-ahead log",
    "what other systems have been given: exports, labels, logs of the web server",
    "the interest learnt from all shoppers, in whose numbers the shopper is counted: learn it anew "
    "(shelfwise interest learn)",
    "prompts that a running model server has cached: restart it",
)


class Erasure(Value):
    """What was removed of a shopper.

    Attributes:
        pseudonyms: number of them: the shopper's, and those of clients (browsers) that nobody else
            has signed in from.
        quarantined: refused rows of the shopper, or that may be.
        written_profiles: number of files with a profile's text.
        models: trained on the shopper: train them again, or take them out of service.
        elsewhere: what cannot be reached from here.
    """

    pseudonyms: int = Field(ge=1)
    events: int = Field(ge=0)
    consents: int = Field(ge=0)
    links: int = Field(ge=0)
    quarantined: int = Field(ge=0)
    written_profiles: int = Field(ge=0)
    models: tuple[TrainedModel, ...] = ()
    elsewhere: tuple[str, ...] = _REMINDERS


def everyone_of(store: BehaviourStore, user_id: str) -> tuple[Pseudonym, ...]:
    """Return the pseudonyms of one person: the shopper's own first, then those of own clients."""
    shopper = store.pseudonym(user_id)
    with store.reading() as connection:
        rows = connection.execute(
            """SELECT client FROM client WHERE shopper = $shopper EXCEPT
            SELECT client FROM client WHERE shopper <> $shopper ORDER BY client""",
            {"shopper": shopper.uuid},
        ).fetchall()
    return (shopper, *(Pseudonym(client) for (client,) in rows))


def forget(
    store: BehaviourStore,
    folder: Path,
    user_id: str,
    *,
    models: Sequence[Path] = (),
    progress: Progress = no_progress,
) -> Erasure:
    """Remove every trace of a shopper.

    The behaviour file is written anew without the shopper's rows, since deleting them would leave
    their bytes in it. May be killed at any moment: run it again until it says what it has done.

    Args:
        store: open for writing, and in no other object of this process.
        folder: of the store.
        user_id: as the shop knows the shopper. Rows in quarantine whose shopper could not be told
            are searched for it; with a pseudonym in its place, they are not.
        models: folders in which models and adapters lie, searched in depth.
        progress: told what is being done.

    Raises:
        DataError: the store is read-only, or a data card cannot be read.
    """
    gone = everyone_of(store, user_id)
    raw = None if Pseudonym.written(user_id) else user_id.strip()
    words = pa.table({"word": pa.array([raw], pa.string())})
    with store.reading() as connection:
        connection.register("given", words)
        counted = _count(connection, [each.uuid for each in gone])
    files = written_profiles(folder, gone)
    trained = take_out([folder, *models], store.pseudonyms, gone)
    for file in files:
        file.unlink(missing_ok=True)
    listed = _listed([each.uuid for each in gone])
    kept = {name: f"FROM {name} WHERE NOT ({of})" for name, of in _of(listed).items()}
    # Another's refused row may lie in a folder of the shopper's: it stays, without the folder.
    kept["quarantine"] = f"""SELECT * REPLACE (CASE WHEN {_named("file")}
        THEN parse_filename(file) ELSE file END AS file) {kept["quarantine"]}"""
    store.rewrite(kept, tables={"given": words}, progress=progress)
    return Erasure(
        pseudonyms=len(gone),
        events=counted["event"],
        consents=counted["consent"],
        links=counted["client"],
        quarantined=counted["quarantine"],
        written_profiles=len(files),
        models=trained,
    )


def _count(connection: duckdb.DuckDBPyConnection, gone: Sequence[UUID]) -> dict[str, int]:
    return {
        name: int(connection.execute(f"SELECT count(*) FROM {name} WHERE {of}").fetchall()[0][0])
        for name, of in _of(_listed(gone)).items()
    }


def _listed(gone: Sequence[UUID]) -> str:
    return "(" + ", ".join(f"'{each}'::UUID" for each in gone) + ")"


def _of(gone: str) -> dict[str, str]:
    """Return the SQL that tells a person's rows, never NULL, by table.

    A refused row whose shopper is not known may be the person's if it has a request, a session or a
    query of theirs. ``given`` has the user id in clear: as a word of its own it is looked for in
    all refused rows, since columns may have been shifted, and in the names of their files.
    """
    theirs = " OR ".join(
        f"""coalesce(json_extract_string(data, '$.{name}') IN
        (SELECT {name} FROM event WHERE shopper IN {gone} AND {name} IS NOT NULL), false)"""
        for name in ("request_id", "session_id", "query")
    )
    return {
        "event": f"shopper IN {gone}",
        "client": f"shopper IN {gone} OR client IN {gone}",
        "consent": f"shopper IN {gone}",
        "quarantine": f"""coalesce(shopper IN {gone}, false)
            OR (shopper IS NULL AND ({theirs}))
            OR {_named("concat_ws(' ', data, reason, parse_filename(file))")}""",
    }


def _named(text: str) -> str:
    """Return the SQL that tells whether a text has the user id in ``given``, never NULL."""
    return f"""EXISTS (SELECT 1 FROM given WHERE regexp_matches({text},
        '(^|[^\\pL\\pN])' || regexp_escape(word) || '([^\\pL\\pN]|$)'))"""
