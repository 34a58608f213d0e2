"""Without consent nothing that a shopper did is used, whatever for."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from event_files import write_csv, write_jsonl, write_parquet
from reranker.cli.app import app
from reranker.errors import DataError
from reranker.schema import BehaviourEvent, EventKind
from reranker.settings import PrivacySettings, Purpose, Settings
from retrieval.behaviour import FILE_NAME, BehaviourStore
from retrieval.behaviour.live import utc

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
LATER = datetime(2030, 1, 1, tzinfo=UTC)
NONE = PrivacySettings(default_consent=())


def fill(store: BehaviourStore) -> None:
    store.append(
        [
            BehaviourEvent(
                user_id=user,
                kind=EventKind.PURCHASE,
                at=datetime(2025, 5, day, tzinfo=UTC),
                product_id=f"of {user}",
                discount=day / 4,
            )
            for user in ("anna", "ben")
            for day in (1, 2, 3)
        ]
    )


def used(store: BehaviourStore, purpose: Purpose, user: str) -> bool:
    """Whether anything that is made for a purpose has an event of a shopper."""
    with store.reading() as connection:
        found = connection.execute(
            f"SELECT DISTINCT shopper FROM {store.past(purpose)}", {"as_of": utc(LATER)}
        ).fetchall()
    all_pasts = [shopper for shopper, _ in store.histories(LATER, limit=9, purpose=purpose)]
    assert [shopper.uuid for shopper in all_pasts] == sorted(shopper for (shopper,) in found)
    here = store.pseudonym(user) in all_pasts
    if purpose == "personalisation":
        assert bool(store.history(user, LATER, limit=9)) == here
    if purpose == "analytics":
        assert (f"of {user}" in store.popular(LATER, days=9999, k=9)) == here
    return here


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_purpose_that_is_revoked_ends_at_once(tmp_path: Path, purpose: Purpose) -> None:
    with BehaviourStore(tmp_path) as store:
        fill(store)
        store.set_consent("anna", purpose, granted=False)
        assert {each: used(store, each, "anna") for each in PURPOSES} == {
            each: each != purpose for each in PURPOSES
        }
        assert all(used(store, each, "ben") for each in PURPOSES)
        store.set_consent("anna", purpose, granted=True)
        assert used(store, purpose, "anna")
        assert store.count() == 6


@pytest.mark.parametrize("purpose", PURPOSES)
def test_where_nothing_holds_by_default_only_what_is_granted_does(
    tmp_path: Path, purpose: Purpose
) -> None:
    with BehaviourStore(tmp_path, privacy=NONE) as store:
        fill(store)
        store.set_consent("anna", purpose, granted=True)
        assert [each for each in PURPOSES if used(store, each, "anna")] == [purpose]
        assert not any(used(store, each, "ben") for each in PURPOSES)
        said = {each.purpose: each.recorded_at is not None for each in store.consent("anna")}
        assert said == {each: each == purpose for each in PURPOSES}
    with BehaviourStore(tmp_path, read_only=True, privacy=NONE) as store:
        assert used(store, purpose, "anna")
        with pytest.raises(DataError, match="read-only"):
            store.set_consent("anna", purpose, granted=False)


def test_all_pasts_are_those_of_each(tmp_path: Path) -> None:
    as_of = datetime(2025, 5, 3, tzinfo=UTC)
    with BehaviourStore(tmp_path) as store:
        fill(store)
        shown = {"user_id": "anna", "kind": EventKind.IMPRESSION, "product_id": "x"}
        store.append([BehaviourEvent(at=datetime(2025, 5, 1, tzinfo=UTC), **shown)])
        for limit in (1, 9):
            pasts = dict(store.histories(as_of, limit=limit))
            assert pasts == {
                store.pseudonym(user): store.history(user, as_of, limit=limit)
                for user in ("anna", "ben")
            }
        (newest, oldest) = pasts[store.pseudonym("anna")]
        assert (newest.discount, oldest.discount) == (0.5, 0.25)
        assert newest.at_us > oldest.at_us


@pytest.mark.parametrize("privacy", [PrivacySettings(), NONE])
@pytest.mark.parametrize("said", [[], [True], [False], [True, False], [False, True], [True, True]])
def test_whatever_is_on_record_the_past_of_one_is_that_among_all(
    tmp_path: Path, privacy: PrivacySettings, said: list[bool]
) -> None:
    """There is one record of a purpose; should there ever be more, no question may differ."""
    as_of = datetime(2025, 5, 9, tzinfo=UTC)
    with BehaviourStore(tmp_path, privacy=privacy) as store:
        fill(store)
        anna = store.pseudonym("anna")
        with store.changing() as connection:
            for granted in said:
                connection.execute(
                    "INSERT INTO consent VALUES (?, 'personalisation', ?, now()::TIMESTAMP)",
                    [anna.uuid, granted],
                )
        pasts = dict(store.histories(as_of, limit=9))
        for limit in (1, 9):
            assert store.history("anna", as_of, limit=limit) == pasts.get(anna, [])[:limit]


ROWS = [
    {"user_id": "anna", "purpose": "training", "granted": "no"},
    {"user_id": "anna", "purpose": "Analytics", "granted": "false"},
    {"user_id": "anna", "purpose": "analytics", "granted": "true"},
    {"user_id": "ben", "purpose": "personalisation", "granted": None},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        names = list(rows[0])
        pq.write_table(pa.table({name: [row[name] for row in rows] for name in names}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        lines = (",".join(value or "" for value in row.values()) for row in rows)
        path.write_text("\n".join([",".join(rows[0]), *lines, ""]))
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_files_of_consent(tmp_path: Path, name: str) -> None:
    with BehaviourStore(tmp_path / "store", privacy=NONE) as store:
        fill(store)
        for _ in range(2):
            report = store.import_consent([write(tmp_path / name, ROWS)])
            assert (report.records, report.shoppers) == (3, 2)
            assert [each for each in PURPOSES if used(store, each, "anna")] == ["analytics"]
            assert [each for each in PURPOSES if used(store, each, "ben")] == ["personalisation"]
        with store.reading() as connection:
            assert connection.execute("SELECT count(*) FROM consent").fetchall() == [(3,)]


IDS = [
    *("550E8400-E29B-41D4-A716-446655440000", "{550e8400-e29b-41d4-a716-446655440000}", "00123"),
    *(
        "2025-5-1",
        "2025-05-01T10:00:00Z",
        "12:30",
        "1e5",
        "true",
        "#7",
        "NULL",
        " x\t",
        "O'Neil, J",
    ),
    *(7, 12345678901234567890123),
]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_id_means_the_same_shopper_as_in_events(tmp_path: Path, suffix: str) -> None:
    ids = [str(each) for each in IDS] if suffix == "parquet" else IDS
    event = {"kind": "click", "at": "2025-05-01T00:00:00Z", "product_id": "p"}
    said = {"purpose": "personalisation", "granted": "no"}
    writers = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}
    for name, more in (("events", event), ("said", said)):
        writers[suffix](tmp_path / f"{name}.{suffix}", [{"user_id": each, **more} for each in ids])
    with BehaviourStore(tmp_path / "store") as store:
        store.import_events([tmp_path / f"events.{suffix}"])
        assert len(list(store.histories(LATER, limit=9))) == len(IDS)
        assert store.import_consent([tmp_path / f"said.{suffix}"]).shoppers == len(IDS)
        assert list(store.histories(LATER, limit=9)) == []


def test_numbers_are_the_ids_that_they_are_in_events(tmp_path: Path) -> None:
    said = {"user_id": [123.0, 7.0], "purpose": ["training"] * 2, "granted": [False] * 2}
    pq.write_table(pa.table(said), tmp_path / "a.parquet")
    with BehaviourStore(tmp_path / "store") as store:
        store.import_consent([tmp_path / "a.parquet"])
        assert [store.consent(user)[1].granted for user in ("123", "7", "8")] == [
            False,
            False,
            True,
        ]


def test_a_row_that_cannot_be_parsed_refuses_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,purpose\nanna,training\nben,training,x,y\n")
    (tmp_path / "b.jsonl").write_text('{"user_id": "anna", "purpose": "training"}\n{broken\n')
    with BehaviourStore(tmp_path / "store", privacy=NONE) as store:
        for name in ("a.csv", "b.jsonl"):
            with pytest.raises(DataError, match=f"{name}: row 2: .*nothing was imported"):
                store.import_consent([tmp_path / name])
        assert not store.consent("anna")[1].granted
    assert [file.name for file in (tmp_path / "store").iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": ""}, "row 2, user_id: missing"),
        ({"purpose": "fun"}, "row 2, purpose: unknown; the purposes are personalisation"),
        ({"granted": "perhaps"}, "row 2, granted: neither true nor false"),
    ],
)
def test_a_wrong_row_refuses_the_whole_file(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    file = write(tmp_path / "a.csv", [ROWS[0], {**ROWS[1], **change}])
    with BehaviourStore(tmp_path / "store") as store:
        fill(store)
        with pytest.raises(DataError, match=message) as caught:
            store.import_consent([file])
        assert str(file) in str(caught.value)
        assert all(used(store, each, "anna") for each in PURPOSES)
    (tmp_path / "b.csv").write_text("who,purpose\nanna,training\n")
    with BehaviourStore(tmp_path / "store") as store:
        with pytest.raises(DataError, match=r"b.csv: missing column user_id; .*who, purpose"):
            store.import_consent([tmp_path / "b.csv"])
        store.import_consent([tmp_path / "b.csv"], mapping={"user_id": "who"})


def test_what_was_written_goes_with_the_consent(tmp_path: Path) -> None:
    click = {"action_name": "click", "timestamp": "2025-05-01", "object_id": "p"}
    log = tmp_path / "ubi.jsonl"
    log.write_text(json.dumps({**click, "user_id": "anna", "client_id": "her phone"}) + "\n")
    with BehaviourStore(tmp_path) as store:
        fill(store)
        store.import_events([log])
        names = {user: store.pseudonym(user).hex for user in ("anna", "ben", "her phone")}
    written = tmp_path / "profiles" / "written"
    written.mkdir(parents=True)
    for digits in names.values():
        (written / f"{digits}.en.json").write_text("{}")
    (written / "read me").write_text("not of a shopper")
    words = ["--store", str(tmp_path)]
    asked = ["privacy", "consent", "anna", *words]
    assert CliRunner().invoke(app, [*asked, "--revoke", "training"]).exit_code == 0
    assert len(list(written.iterdir())) == 4
    assert CliRunner().invoke(app, [*asked, "--revoke", "personalisation"]).exit_code == 0
    assert {file.name for file in written.iterdir()} == {f"{names['ben']}.en.json", "read me"}
    with BehaviourStore(tmp_path) as store:
        assert not any(used(store, "personalisation", each) for each in ("anna", "her phone"))
    refusal = write(tmp_path / "b.csv", [{**ROWS[3], "granted": "no"}])
    assert (
        CliRunner().invoke(app, ["privacy", "import-consent", str(refusal), *words]).exit_code == 0
    )
    assert [file.name for file in written.iterdir()] == ["read me"]


def test_the_commands(tmp_path: Path) -> None:
    settings = Settings.load(None, {"store.path": tmp_path})
    with BehaviourStore(tmp_path, privacy=settings.privacy) as store:
        fill(store)
    words = ["privacy", "consent", "anna", "--store", str(tmp_path)]
    shown = CliRunner().invoke(app, words)
    assert shown.output.count("by default") == 3
    words += ["--grant", "training", "--revoke", "personalisation", "--json"]
    said = json.loads(CliRunner().invoke(app, words).stdout)
    assert {each["purpose"]: each["granted"] for each in said} == {
        "personalisation": False, "training": True, "analytics": True,
    }  # fmt: skip
    assert CliRunner().invoke(app, [*words, "--grant", "fun"]).exit_code != 0
    file = write(tmp_path / "a.csv", ROWS)
    words = ["privacy", "import-consent", str(file), "--store", str(tmp_path)]
    assert "3 records of 2 shoppers" in CliRunner().invoke(app, words).output
    with BehaviourStore(tmp_path, privacy=settings.privacy) as store:
        assert [each for each in PURPOSES if used(store, each, "anna")] == ["analytics"]
