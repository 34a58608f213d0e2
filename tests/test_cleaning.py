"""Cleaning of events: what an import repairs, refuses or counts, and that it says so."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from reranker.cli.app import app
from reranker.errors import ConfigError, DataError
from reranker.schema import Product
from reranker.settings import CleaningSettings, Settings
from reranker.wiring import catalogue_file, import_events, rejected_events
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.checks import Finding, products_of
from retrieval.behaviour.importing import ImportReport
from retrieval.product_table import ProductTable
from shop import stored

NOON = datetime(2025, 5, 1, 12, tzinfo=UTC)


def event(**changes: Any) -> dict[str, Any]:
    return {"user_id": "u", "kind": "view", "at": NOON, "product_id": "p", **changes}


def write(path: Path, events: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(each, default=str) + "\n" for each in events))
    return path


def findings(report: ImportReport) -> dict[tuple[str, str], int]:
    return {(each.check, each.outcome): each.events for each in report.findings}


def catalogue(*products: Product) -> ProductTable:
    table, *_ = ProductTable.empty().upsert(products)
    return table


SECONDS = int(NOON.timestamp())


@pytest.mark.parametrize(
    "at",
    [
        "+57298-12-14 00:00:00".removeprefix("+"),  # milliseconds since 1970 taken for seconds
        datetime.fromtimestamp(SECONDS / 1000, UTC).isoformat(),  # seconds for milliseconds
    ],
)
def test_mistaken_units_of_time_are_mended(tmp_path: Path, store: BehaviourStore, at: str) -> None:
    file = write(tmp_path / "a.jsonl", [event(at=at), event()])
    report = store.import_events([file])
    assert findings(report)["clock", "repaired"] == 1
    first, last = store.time_range() or (NOON, NOON)
    assert abs(first - NOON) < timedelta(days=1500)
    assert abs(last - NOON) < timedelta(days=1500)
    strict = store.import_events([file], cleaning=CleaningSettings(repair_clock=False))
    assert (strict.rejected_count, strict.rejected[0].field) == (1, "at")


@pytest.mark.parametrize("unit", [1, 1000, 1_000_000, 1_000_000_000])
def test_epochs_of_every_unit(tmp_path: Path, store: BehaviourStore, unit: int) -> None:
    store.import_events([write(tmp_path / "a.jsonl", [event(at=SECONDS * unit)])])
    assert store.time_range() == (NOON, NOON)


def test_parquet_times_far_in_the_future_are_mended(tmp_path: Path, store: BehaviourStore) -> None:
    micros = SECONDS * 1000 * 1_000_000  # as a reader that takes milliseconds for seconds makes it
    times = pa.array([micros], pa.int64()).cast(pa.timestamp("us", "UTC"))
    columns = {"user_id": ["u"], "kind": ["view"], "at": times, "product_id": ["p"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    report = store.import_events([tmp_path / "a.parquet"])
    assert findings(report)["clock", "repaired"] == 1
    assert store.time_range() == (NOON, NOON)


def test_wrong_clocks_by_setting(tmp_path: Path, store: BehaviourStore) -> None:
    soon = datetime.now(UTC) + timedelta(hours=3)
    file = write(tmp_path / "a.jsonl", [event(at=soon), event(at="1994-12-31"), event()])
    report = store.import_events([file])
    assert (report.imported, findings(report)["clock", "quarantined"]) == (2, 1)
    assert "cleaning.earliest" in report.rejected[0].reason
    cleaning = CleaningSettings.model_validate(
        {"clock_tolerance_hours": 1, "earliest": "1990-01-01"}
    )
    report = store.import_events([file], cleaning=cleaning)
    assert (report.imported, report.duplicates, report.rejected_count) == (1, 1, 1)
    assert "cleaning.clock_tolerance_hours" in report.rejected[0].reason


def burst(user: str, count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        event(user_id=user, at=NOON + timedelta(seconds=n / 2), product_id=f"p{n}", **changes)
        for n in range(count)
    ]


def test_bots_are_refused_and_fast_people_are_not(tmp_path: Path, store: BehaviourStore) -> None:
    day = [event(user_id="day", at="2025-05-01", product_id=f"p{n}") for n in range(90)]
    events = [
        *burst("bot", 61),
        *burst("reader", 60),
        {**event(user_id="reader"), "dwell_ms": 900},
        *burst("human", 90, dwell_ms=1),
        *burst("buyer", 90, kind="purchase"),
        *burst("gallery", 90, kind="impression"),
        *burst("twice", 35), *burst("twice", 35),
        *day,
    ]  # fmt: skip
    report = store.import_events([write(tmp_path / "a.jsonl", events)])
    assert findings(report)["bot", "quarantined"] == 61
    users = {user for (user,) in stored(store, "user_id")}
    assert users == {"reader", "human", "buyer", "gallery", "twice", "day"}
    assert {row.shopper for row in store.rejected()} == {str(store.pseudonym("bot"))}
    report = store.import_events(
        [tmp_path / "a.jsonl"], cleaning=CleaningSettings(bot_events_per_minute=0)
    )
    assert (report.imported, store.rejected()) == (61, ())


def test_orphans_are_counted_or_refused(tmp_path: Path, store: BehaviourStore) -> None:
    known = products_of(catalogue(Product(product_id="p", title="Milk")))
    search = {"user_id": "u", "kind": "search", "at": NOON, "query": "milk"}
    file = write(tmp_path / "a.jsonl", [event(), event(product_id="gone"), search])
    strict = CleaningSettings(orphans="reject")
    report = store.import_events([file], products=known, cleaning=strict)
    assert (report.imported, findings(report)["orphan", "quarantined"]) == (2, 1)
    assert report.rejected[0].reason.startswith("not in the catalogue: gone")
    report = store.import_events([file], products=known)
    assert (report.imported, findings(report)["orphan", "counted"]) == (1, 1)
    assert store.rejected() == ()


def test_events_before_their_product(tmp_path: Path, store: BehaviourStore) -> None:
    table = catalogue(
        Product(product_id="new", title="A", attributes={"released": "2025-05-02"}),
        Product(product_id="old", title="B", attributes={"released": "2025-04-30"}),
        Product(product_id="p", title="C", attributes={"released": "unknown"}),
    )
    file = write(tmp_path / "a.jsonl", [event(product_id=name) for name in ("new", "old", "p")])
    cleaning = CleaningSettings(product_date="released")
    report = store.import_events([file], products=products_of(table, "released"), cleaning=cleaning)
    assert (report.imported, report.rejected_count) == (2, 1)
    assert report.rejected[0].reason == "the product exists only since 2025-05-02 00:00:00"
    report = store.import_events([file], products=products_of(table))
    assert (report.imported, findings(report)["catalogue", "not checked"]) == (1, 0)


def test_clicks_that_nothing_was_shown_for_are_counted(
    tmp_path: Path, store: BehaviourStore
) -> None:
    events = [
        event(kind="impression", request_id="r"),
        event(kind="click", request_id="r"),
        event(kind="click", request_id="r", product_id="other"),
        event(kind="click", request_id="unknown"),
        event(kind="click"),
    ]
    report = store.import_events([write(tmp_path / "a.jsonl", events)])
    assert (report.imported, findings(report)["click without impression", "counted"]) == (5, 2)


def test_the_accounts_add_up(tmp_path: Path, store: BehaviourStore) -> None:
    events = [
        event(), event(), event(kind="click"), event(kind="jump"), event(quantity=-1),
        event(value=-0.01), event(position=0), *burst("bot", 70),
    ]  # fmt: skip
    report = store.import_events([write(tmp_path / "a.jsonl", events)])
    whole = report.imported + report.duplicates + report.ignored + report.rejected_count
    assert report.events == report.rows == whole == len(events)
    assert findings(report) == {
        ("duplicate", "dropped"): 1,
        ("impossible", "quarantined"): 1,
        ("unknown kind", "quarantined"): 1,
        ("bot", "quarantined"): 70,
        ("catalogue", "not checked"): 0,
    }
    assert sum(row.events for row in store.rejected()) == report.rejected_count


def test_a_corrected_file_leaves_the_quarantine(
    tmp_path: Path, store: BehaviourStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.jsonl", [event(), event(kind="jump")])
    other = write(tmp_path / "b.jsonl", [event(kind="leap")])
    store.import_events([file, other])
    assert [row.reason.split(";")[0] for row in store.rejected()] == [
        "unknown kind jump", "unknown kind leap",
    ]  # fmt: skip
    write(file, [event(), event(kind="click")])
    monkeypatch.chdir(tmp_path)
    assert store.import_events(["a.jsonl"]).imported == 1
    assert [Path(row.file) for row in store.rejected()] == [other]
    assert len(store.rejected(limit=1)) == 1


def test_settings_reach_the_import(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [event(kind="hover"), event(kind="jump"), event()])
    given = {
        "store.path": tmp_path / "store",
        "cleaning.kinds": ["hover=view", "jump=ignore"],
        "cleaning.orphans": "reject",
    }
    settings = Settings.load(None, given)
    catalogue(Product(product_id="q", title="Milk")).save(catalogue_file(settings))
    report = import_events(settings, [file])
    assert (report.ignored, findings(report)["orphan", "quarantined"]) == (1, 2)
    kinds = {"jump": "view"}
    assert import_events(settings, [file], kinds=kinds).rejected_count == 3


KINDS = ("hover=view", "page.exit=ignore")


@pytest.mark.parametrize(
    ("toml", "variable", "argument", "origin"),
    [
        ('kinds = {hover = "view", "page.exit" = "ignore"}', None, None, "file"),
        ('kinds = ["hover=view", "page.exit=ignore"]', None, None, "file"),
        ('kinds = "hover=view, page.exit=ignore"', None, None, "file"),
        ('kinds = {jump = "view"}', "hover=view,page.exit=ignore", None, "environment"),
        ("", "jump=view", " hover=view , page.exit=ignore", "argument"),
        ("", None, '["hover=view", "page.exit=ignore"]', "argument"),
    ],
)
def test_kinds_can_be_set_everywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    toml: str,
    variable: str | None,
    argument: str | None,
    origin: str,
) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f"[cleaning]\n{toml}\n")
    if variable is not None:
        monkeypatch.setenv("SHELFWISE_CLEANING__KINDS", variable)
    given = {} if argument is None else {"cleaning.kinds": argument}
    assert Settings.load(file, given).cleaning.kinds == KINDS
    words = [f"--set=cleaning.kinds={argument}"] if argument else []
    shown = CliRunner().invoke(app, ["config", "--config", str(file), *words, "--json"])
    told = json.loads(shown.stdout)["cleaning.kinds"]
    assert told == {"value": list(KINDS), "origin": origin}


@pytest.mark.parametrize(
    "toml", ['columns = {user_id = "who", at = "day"}', 'columns = "user_id=who, at=day"']
)
def test_columns_can_be_set_for_all_imports(tmp_path: Path, toml: str) -> None:
    (tmp_path / "s.toml").write_text(f"[cleaning]\n{toml}\n")
    (tmp_path / "a.csv").write_text("who,kind,day,product_id\nu,view,2025-05-01,p\n")
    (tmp_path / "b.csv").write_text("id,kind,day,product_id\nu,view,2025-05-02,p\n")
    settings = Settings.load(tmp_path / "s.toml", {"store.path": tmp_path / "store"})
    assert import_events(settings, [tmp_path / "a.csv"]).imported == 1
    with pytest.raises(DataError, match=r"b\.csv: missing column who"):
        import_events(settings, [tmp_path / "b.csv"])
    assert import_events(settings, [tmp_path / "b.csv"], mapping={"user_id": "id"}).imported == 1


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            'columns = "who"',
            r"cleaning.columns \(file\): .*'who' is not FIELD=COLUMN, such as user_",
        ),
        ('columns = "user_id="', "^setting cleaning.columns: 'user_id=' is not FIELD=COLUMN"),
        ('columns = {user = "who"}', "^setting cleaning.columns: unknown field user; the fields"),
        ("columns = {at = 1}", r"cleaning.columns \(file\): .*at has no column as text"),
        ('kinds = "hover"', r"setting cleaning.kinds \(file\): .*'hover' is not ACTION=KIND"),
        ("kinds = {page = {exit = 1}}", r"cleaning.kinds \(file\): .*page has no kind as text"),
        (
            'kinds = {hover = "look"}',
            "^setting cleaning.kinds: hover=look: unknown kind; the kinds",
        ),
        ('kinds = "=view"', "^setting cleaning.kinds: '=view' is not ACTION=KIND"),
    ],
)
def test_bad_pairs_name_the_setting(tmp_path: Path, toml: str, message: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f"[cleaning]\n{toml}\n")
    with pytest.raises(ConfigError, match=message):
        import_events(Settings.load(file), [write(tmp_path / "a.jsonl", [event()])])


def test_no_address_is_kept_where_columns_have_shifted(
    tmp_path: Path, store: BehaviourStore
) -> None:
    address = "Zoë.O'Neil+shop@mail.example.co.uk"
    (tmp_path / "a.csv").write_text(
        "user_id,kind,at,product_id\n"
        f"2025-05-01,{address},click,p\nclick,view,{address},p\nu,jump,2025-05-01,of {address}\n"
    )
    report = store.import_events([tmp_path / "a.csv"])
    rows = store.rejected()
    assert [row.field for row in rows] == ["kind", "at", "kind"]
    assert rows[0].reason.startswith("unknown kind [e-mail]; write --map-kind [e-mail]=KIND")
    assert rows[1].reason.startswith("not a time: [e-mail]; write ISO 8601")
    assert json.loads(rows[2].data or "")["product_id"] == "of [e-mail]"
    said = f"{rows} {report}"
    assert "example" not in said
    assert "Neil" not in said


def test_too_many_rejections_refuse_the_whole_import(tmp_path: Path) -> None:
    settings = Settings.load(None, {"store.path": tmp_path / "store"})
    bad = write(tmp_path / "bad.jsonl", [event(kind="leap"), event(user_id="first")])
    import_events(settings, [bad])
    before = rejected_events(settings)
    rows = [*(event(product_id=f"p{n}") for n in range(3)), event(kind="jump")]
    files = [write(tmp_path / "a.jsonl", rows), write(bad, [event(at="never")])]
    message = r"2 of 5 events were rejected, so nothing .*: 1 clock \(at\), 1 unknown kind \(kind\)"
    with pytest.raises(DataError, match=message) as caught:
        import_events(settings, files, max_rejected=0.39)
    assert f"{files[0]} row 4, kind: unknown kind jump" in str(caught.value)
    assert rejected_events(settings) == before != ()
    with BehaviourStore(settings.store.path) as opened:
        assert opened.count() == 1
    words = ["behaviour", "import", *map(str, files), "--store", str(settings.store.path)]
    refused = CliRunner().invoke(app, [*words, "--max-rejected", "0.39"])
    assert isinstance(refused.exception, DataError)
    assert CliRunner().invoke(app, [*words, "--max-rejected", "0.4"]).exit_code == 0
    assert len(rejected_events(settings)) == 2


def test_refused_log_documents_count_by_event(tmp_path: Path, store: BehaviourStore) -> None:
    click = {"action_name": "click", "timestamp": str(NOON), "event_attributes": {"object_id": "p"}}
    query = {"user_query": "milk", "timestamp": str(NOON), "query_response_hit_ids": ["p"]}
    file = write(tmp_path / "a.jsonl", [{**click, "client_id": "c"}, query])
    with pytest.raises(DataError, match="2 of 3 events were rejected"):
        store.import_events([file], max_rejected=0.66)
    assert store.import_events([file], max_rejected=0.67).imported == 1


def test_the_commands(tmp_path: Path) -> None:
    file = tmp_path / "sales[1].csv"
    file.write_text("who,at,product_id\nu,2025-05-01,p\nu,2025-05-01,p\nu,never,p\n")
    store = ["--store", str(tmp_path / "store")]
    words = ["behaviour", "import", str(file), "--map", "user_id=who", "--kind", "purchase"]
    result = CliRunner().invoke(app, [*words, *store])
    assert result.exit_code == 0, result.output
    assert "3 rows read (1 native): 1 events imported, 1 duplicates" in result.output
    assert "not a time: never" in result.output
    told = CliRunner().invoke(app, [*words, *store, "--json"])
    report = json.loads(told.stdout)
    assert Finding.model_validate(report["findings"][0]).check == "duplicate"
    listed = CliRunner().invoke(app, ["behaviour", "rejected", *store, "--json"])
    (row,) = json.loads(listed.stdout)
    assert (row["row"], row["field"], row["check"]) == (3, "at", "clock")
    assert json.loads(row["data"]) == {"at": "never", "product_id": "p", "kind": "purchase"}
    shown = CliRunner().invoke(app, ["behaviour", "rejected", *store])
    assert "never" in shown.output
    wrong = CliRunner().invoke(app, ["behaviour", "import", str(file), *store, "--format", "x"])
    assert wrong.exit_code != 0
