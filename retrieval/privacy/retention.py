"""Deletes what is older than the shop may keep it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, Field

from reranker.ports import Progress, no_progress
from reranker.schema import Value
from retrieval.behaviour import BehaviourStore
from retrieval.privacy.traces import remove_profiles


class Retention(Value):
    """What was deleted.

    Attributes:
        before: what happened earlier is gone.
        quarantined: refused rows that were imported earlier; when they happened is not known.
    """

    before: AwareDatetime
    events: int = Field(ge=0)
    quarantined: int = Field(ge=0)


def retain(
    store: BehaviourStore, folder: Path, days: int, *, progress: Progress = no_progress
) -> Retention:
    """Delete events older than some days, with their bytes; nothing is written if there are none.

    Consent stays: it is no behaviour, and says what holds for the next event.

    Args:
        store: open for writing, and in no other object of this process.
        folder: of the store.
        days: age from which events go.
        progress: told what is being done.

    Raises:
        DataError: the store is read-only.
    """
    before = (datetime.now(UTC) - timedelta(days=days)).replace(microsecond=0)
    cut = f"TIMESTAMP '{before.replace(tzinfo=None)}'"
    old = {"event": f'"at" < {cut}', "quarantine": f"imported_at < {cut}"}
    with store.reading() as connection:
        events, quarantined = (
            int(connection.execute(f"SELECT count(*) FROM {name} WHERE {of}").fetchall()[0][0])
            for name, of in old.items()
        )
    if events or quarantined:
        remove_profiles(folder)
        left = f"(SELECT shopper FROM event WHERE NOT ({old['event']}))"
        kept = {name: f"FROM {name} WHERE NOT ({of})" for name, of in old.items()}
        kept["client"] = f"FROM client WHERE shopper IN {left} OR client IN {left}"
        store.rewrite(kept, progress=progress)
    return Retention(before=before, events=events, quarantined=quarantined)
