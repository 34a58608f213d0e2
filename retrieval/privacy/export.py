"""All that is known of a shopper, for the shopper to read."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime

from reranker.schema import BehaviourEvent, EventKind, Value
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.consent import Consent
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.behaviour.quarantine import QuarantinedRow
from retrieval.behaviour.schema import FIELDS
from retrieval.event_formats.sql import quoted
from retrieval.privacy.erasure import everyone_of
from retrieval.privacy.traces import trained_on, written_profiles


class ShopperExport(Value):
    """What a shop knows of a shopper.

    Attributes:
        pseudonyms: under which the store knows the shopper: first the shopper's own, then those of
            clients (browsers) that nobody else has signed in from.
        events: oldest first; their user ids are pseudonyms, which an import takes.
        refused_rows: of the shopper, in quarantine.
        written_profiles: file name to text.
        models: folders of those trained on the shopper.
    """

    exported_at: AwareDatetime
    pseudonyms: tuple[str, ...]
    consent: tuple[Consent, ...]
    events: tuple[BehaviourEvent, ...]
    refused_rows: tuple[QuarantinedRow, ...]
    written_profiles: dict[str, str]
    models: tuple[Path, ...]


def export(
    store: BehaviourStore, folder: Path, user_id: str, *, models: Sequence[Path] = ()
) -> ShopperExport:
    """Return all that is known of a shopper, whatever the shopper has consented to.

    Args:
        store: may be read-only.
        folder: of the store.
        user_id: as the shop knows the shopper.
        models: folders in which models and adapters lie, searched in depth.

    Raises:
        DataError: a data card cannot be read.
    """
    everyone = everyone_of(store, user_id)
    names = {str(each) for each in everyone}
    trained = trained_on([folder, *models], store.pseudonyms, everyone)
    return ShopperExport(
        exported_at=datetime.now(UTC),
        pseudonyms=tuple(str(each) for each in everyone),
        consent=store.consent(user_id),
        events=_events(store, everyone),
        refused_rows=tuple(row for row in store.rejected() if row.shopper in names),
        written_profiles={
            file.name: file.read_text(encoding="utf-8")
            for file in written_profiles(folder, everyone)
        },
        models=tuple(model.folder for model in trained),
    )


def _events(store: BehaviourStore, everyone: Sequence[Pseudonym]) -> tuple[BehaviourEvent, ...]:
    columns = ", ".join(map(quoted, FIELDS))
    with store.reading() as connection:
        rows = connection.execute(
            f"""SELECT {columns} FROM event WHERE shopper IN (SELECT unnest($shoppers::UUID[]))
            ORDER BY ALL""",
            {"shoppers": [str(each.uuid) for each in everyone]},
        ).fetchall()
    return tuple(sorted((_event(row) for row in rows), key=lambda event: event.at))


def _event(row: tuple[Any, ...]) -> BehaviourEvent:
    values = dict(zip(FIELDS, row, strict=True))
    shopper = Pseudonym(values.pop("shopper"))
    kind, at = EventKind(values.pop("kind")), values.pop("at").replace(tzinfo=UTC)
    # What is kept is told as it is, even if it would not be taken any more.
    return BehaviourEvent.model_construct(user_id=str(shopper), kind=kind, at=at, **values)
