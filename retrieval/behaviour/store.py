"""What shoppers did: one DuckDB file, imported in bulk, appended to live, read by shopper.

Rows lie in runs sorted by shopper and time, so that DuckDB's zone maps find one shopper's events
among ten million in milliseconds, without an index that every import would have to maintain.
Each import adds a run, live events trail behind; when lookups would have to visit too many runs,
an import merges them. Times are kept in UTC without a zone, shoppers as pseudonyms.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from reranker.ports import Progress, no_progress
from reranker.schema import BehaviourEvent
from reranker.settings import CleaningSettings, Purpose
from retrieval.behaviour import consent as consents
from retrieval.behaviour import live
from retrieval.behaviour.checks import Products
from retrieval.behaviour.consent import Consent, ConsentReport
from retrieval.behaviour.database import BehaviourFile
from retrieval.behaviour.histories import PastEvent, histories, newest_first
from retrieval.behaviour.importing import ImportPlan, ImportReport, import_files
from retrieval.behaviour.live import utc
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.behaviour.purchases import PurchaseColumns, read_purchases
from retrieval.behaviour.quarantine import QuarantinedRow
from retrieval.behaviour.quarantine import read as read_quarantine
from retrieval.behaviour.schema import COLUMNS, PSEUDONYM, TABLES, HistoryQuestions, past
from retrieval.behaviour.scrubbing import Scrubber
from retrieval.event_formats.reading import Reading

Asked = tuple[str | duckdb.Statement, str | duckdb.Statement]
"""The `HistoryQuestions`."""
_ROW_GROUP = 122_880
_MOST_RUNS = 12


class BehaviourStore(BehaviourFile):
    """The behaviour of all shoppers in one file. Thread-safe; one process at a time may write.

    Any number of processes may have it open read-only, as long as none writes. Wherever a user id
    is taken, a `retrieval.behaviour.pseudonyms.Pseudonym` as text is taken as well.
    """

    def _open(self) -> None:
        super()._open()
        self._scrubber = Scrubber(self._privacy.phone_regions)
        self._asked = self._parsed("event")

    def import_events(
        self,
        paths: Sequence[Path | str],
        *,
        mapping: Mapping[str, str] | None = None,
        reading: Reading | None = None,
        cleaning: CleaningSettings | None = None,
        products: Products | None = None,
        max_rejected: float = 1.0,
        progress: Progress = no_progress,
    ) -> ImportReport:
        """Import event files, all of them or none.

        Args:
            paths: files (with `retrieval.event_formats.sql.EVENT_SUFFIXES`), folders, globs, and
                tables of PostgreSQL (see `retrieval.behaviour.postgres_table.Table.of`).
            mapping: field of `BehaviourEvent` to column, where the names differ; short for a
                ``reading`` that says only this.
            reading: how the files are to be taken; None tells their formats from their content.
            cleaning: what is repaired and refused; None takes the defaults.
            products: of the catalogue, to check events against.
            max_rejected: share of the events, 0 to 1, above which nothing is imported.
            progress: told what is being done.

        Returns:
            What became of every event. Refused rows are in the store as well: see `rejected`.

        Raises:
            ConfigError: the mapping names an unknown field.
            DataError: a file cannot be read or lacks a column, more events are refused than
                ``max_rejected`` allows, or the store is read-only.
        """
        plan = ImportPlan(
            reading=reading or Reading(mapping=mapping or {}),
            cleaning=cleaning or CleaningSettings(),
            pseudonyms=self._pseudonyms,
            scrubber=self._scrubber,
            retain_days=self._privacy.retain_days,
            products=products,
            max_rejected=max_rejected,
        )
        folder = self._path.parent
        with self.changing() as connection:
            report = import_files(connection, paths, plan=plan, progress=progress, folder=folder)
            self._note_run(connection, 1.0 if report.imported else 0.0)
        self._changes += 1  # not before all is kept: what is derived in between is of the old rows
        return report

    def rejected(self, limit: int | None = None) -> tuple[QuarantinedRow, ...]:
        """Return the rows that imports have refused and not taken since, by file and row."""
        with self.reading() as connection:
            return read_quarantine(connection, limit)

    def append(self, events: Sequence[BehaviourEvent]) -> int:
        """Add live events, visible to the next profile; return how many were new.

        An event that is identical in every field to a known one is not added again.

        Raises:
            DataError: the store is read-only.
        """
        if not events:
            return 0
        with self.changing() as connection:
            added = live.append(connection, events, self._pseudonyms, self._scrubber)
            self._note_run(connection, added / _ROW_GROUP, merge=False)
        return added

    def consent(self, user_id: str) -> tuple[Consent, ...]:
        """Return for every purpose whether a shopper's behaviour may be used."""
        with self.reading() as connection:
            return consents.read(connection, self.pseudonym(user_id), self._privacy.default_consent)

    def set_consent(
        self, user_id: str, purpose: Purpose, *, granted: bool, clients: bool = False
    ) -> None:
        """Keep what a shopper has said, in place of what was said before.

        Args:
            user_id: of the shopper.
            purpose: what for.
            granted: whether the shopper agrees.
            clients: also of own clients; see `retrieval.behaviour.consent.with_clients`.

        Raises:
            DataError: the store is read-only.
        """
        said = {(self.pseudonym(user_id).uuid, purpose): granted}
        with self.changing() as connection:
            consents.write(connection, consents.with_clients(connection, said) if clients else said)
        self._changes += 1

    def import_consent(
        self, paths: Sequence[Path | str], *, mapping: Mapping[str, str] | None = None
    ) -> ConsentReport:
        """Import what many shoppers have said; see `retrieval.behaviour.consent.import_files`.

        Raises:
            ConfigError: the mapping names an unknown field.
            DataError: a file cannot be read, a row is wrong, or the store is read-only; then
                nothing is imported.
        """
        with self.changing() as connection:
            report = consents.import_files(
                connection, paths, self._pseudonyms, mapping or {}, self._path.parent
            )
        self._changes += 1
        return report

    def count(self) -> int:
        """Return the number of events."""
        return int(self._rows("SELECT count(*) FROM event")[0][0])

    def users(self) -> int:
        """Return the number of shoppers."""
        return int(self._rows("SELECT count(DISTINCT shopper) FROM event")[0][0])

    def busiest(self, k: int) -> tuple[str, ...]:
        """Return the pseudonyms of at most k shoppers, those with the most events first."""
        rows = self._rows(
            f"""SELECT {PSEUDONYM} FROM event GROUP BY shopper
            ORDER BY count(*) DESC, shopper LIMIT $k""",
            {"k": k},
        )
        return tuple(row[0] for row in rows)

    def time_range(self) -> tuple[datetime, datetime] | None:
        """Return the times of the first and the last event; None without any."""
        first, last = self._rows('SELECT min("at"), max("at") FROM event')[0]
        return None if first is None else (first.replace(tzinfo=UTC), last.replace(tzinfo=UTC))

    def history(self, user_id: str, as_of: datetime, *, limit: int) -> list[PastEvent]:
        """Return what a shopper did strictly before a moment, newest first.

        Nothing without consent to personalisation. Impressions are left out: they tell what the
        shop did.
        """
        shopper = self.pseudonym(user_id)
        some, newest = self._history_of(shopper)
        asked = {"shopper": shopper.uuid, "as_of": utc(as_of)}
        rows = self._rows(some, asked | {"limit": limit + 1})
        if len(rows) > limit:
            rows = self._rows(newest, asked | {"limit": limit})
        return newest_first(rows)

    def _history_of(self, shopper: Pseudonym) -> Asked:
        """Return the questions for a shopper's history."""
        return self._asked

    def _parsed(self, events: str) -> Asked:
        """Parse the questions for histories once: profiles ask them for every request."""
        questions = HistoryQuestions.over(self._privacy.default_consent, events)
        with super().reading() as connection:
            some, newest = (connection.extract_statements(each)[0] for each in questions)
        return some, newest

    def histories(
        self, as_of: datetime, *, limit: int, purpose: Purpose = "personalisation"
    ) -> Iterator[tuple[Pseudonym, list[PastEvent]]]:
        """Yield the `history` of every shopper with consent to a purpose, by pseudonym.

        Streams: at any time a few thousand events are in memory.
        """
        with self.reading() as connection:
            yield from histories(connection, self.past(purpose), utc(as_of), limit=limit)

    def purchases(
        self, as_of: datetime, purpose: Purpose, *, kept: bool = False
    ) -> PurchaseColumns:
        """Return every purchase strictly before a moment by shoppers with consent to a purpose.

        Args:
            as_of: the moment.
            purpose: what for.
            kept: leave out what was sent back before the moment, as profiles do.
        """
        with self.reading() as connection:
            return read_purchases(connection, self.past(purpose), utc(as_of), kept=kept)

    def past(self, purpose: Purpose) -> str:
        """Return the SQL of all events before ``$as_of`` that may be used for a purpose.

        What is derived from behaviour (labels, training rows, counts) reads this and nothing else.
        The parameter ``as_of`` is in UTC without a zone: `retrieval.behaviour.live.utc`.
        """
        return past(purpose, self._privacy.default_consent)

    def popular(self, as_of: datetime, *, days: int, k: int) -> tuple[str, ...]:
        """Return the products bought most often in the days before a moment, most first.

        Clicks, then views, decide between equals, and fill up where too little was bought. Only
        what shoppers with consent to analytics did counts.
        """
        start = utc(as_of) - timedelta(days=days)
        rows = self._rows(
            f"""SELECT product_id FROM {self.past("analytics")} AS past WHERE "at" >= $start
            AND kind IN ('purchase', 'click', 'view') GROUP BY product_id
            ORDER BY count(*) FILTER (WHERE kind = 'purchase') DESC,
            count(*) FILTER (WHERE kind = 'click') DESC, count(*) DESC, product_id LIMIT $k""",
            {"as_of": utc(as_of), "start": start, "k": k},
        )
        return tuple(row[0] for row in rows)

    def _note_run(
        self, connection: duckdb.DuckDBPyConnection, runs: float, *, merge: bool = True
    ) -> None:
        connection.execute("UPDATE meta SET runs = runs + ?", [runs])
        if merge and connection.execute("SELECT runs FROM meta").fetchall()[0][0] > _MOST_RUNS:
            _merge_runs(connection)


def _merge_runs(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        f"""CREATE TABLE merged {TABLES["event"]};
        INSERT INTO merged SELECT {COLUMNS} FROM event ORDER BY shopper, "at";
        DROP TABLE event;
        ALTER TABLE merged RENAME TO event"""
    )
    connection.execute("UPDATE meta SET runs = 1")
