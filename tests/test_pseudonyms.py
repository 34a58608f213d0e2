"""Shoppers are kept as pseudonyms, with a key that is kept elsewhere."""

import hashlib
import hmac
import json
import logging
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from reranker.errors import ConfigError, DataError
from reranker.schema import BehaviourEvent, EventKind
from reranker.settings import PrivacySettings
from retrieval.behaviour import FILE_NAME, BehaviourStore
from retrieval.behaviour.keys import KeyRing
from retrieval.behaviour.pseudonyms import Pseudonym, Pseudonyms

SECRET = "correct horse battery staple"
PRIVACY = PrivacySettings(key=SecretStr(SECRET))
LATER = datetime(2030, 1, 1, tzinfo=UTC)
NAME = "anna.katharina@example.org"


def click(user: str, **changes: Any) -> BehaviourEvent:
    values = {"user_id": user, "kind": EventKind.CLICK, "product_id": "p", **changes}
    return BehaviourEvent(at=datetime(2025, 5, 1, tzinfo=UTC), **values)


def log(path: Path) -> Path:
    """Events of one shopper in every place that a log has for ids."""
    at = "2024-06-01T10:30:00Z"
    documents: list[Any] = [
        {"user_query": "milk", "query_id": "q", "client_id": NAME, "timestamp": at},
        {"action_name": "click", "timestamp": at, "user_id": NAME, "client_id": f"c {NAME}",
         "query_id": "q", "event_attributes": {"object": {"object_id": "p", "user_id": NAME}}},
        {"action_name": "jump", "timestamp": at, "user_id": NAME, "session_id": "s",
         "user": {"mail": NAME}, "event_attributes": {"object": {"object_id": "p"}}},
        f"{NAME} is not JSON",
    ]  # fmt: skip
    lines = (each if isinstance(each, str) else json.dumps(each) for each in documents)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_pseudonym_is_a_keyed_hash() -> None:
    ring = KeyRing.load(PRIVACY)
    made = Pseudonyms(ring, 1).of(" anna ")
    digest = hmac.new(SECRET.encode(), b"shopper:anna", hashlib.sha256).digest()
    assert made.bytes == digest[:16]
    assert Pseudonyms(ring, 1).hexes(["anna", str(made)]) == [made.hex, made.hex]
    assert Pseudonym.written(str(made)) == made
    assert Pseudonym.written(f"pseudonym:{made.hex[:-1]}") is None


def test_no_id_is_in_any_file(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    csv = tmp_path / "a.csv"
    csv.write_text(
        f"user_id,kind,at,product_id,session_id\n{NAME},view,2025-05-01,p,{NAME}\n"
        f"{NAME},clik,2025-05-01,p,s\n{NAME},view\n"
    )
    rankings = tmp_path / "b.jsonl"
    ranking = {"event": "ranking", "id": "r", "timestamp": 1717236600000, "session": NAME,
               "items": [{"id": "p"}]}  # fmt: skip
    rankings.write_text(json.dumps(ranking))
    with BehaviourStore(folder, privacy=PRIVACY) as store:
        report = store.import_events([csv, log(tmp_path / "a.jsonl"), rankings])
        store.append([click(NAME, session_id=NAME)])
        store.set_consent(NAME, "training", granted=True)
        # Before the store is closed, so that its log is among the files.
        assert search(folder, NAME.encode()) == []
        assert (report.imported, store.count(), store.users()) == (4, 5, 1)
        assert len(store.history(NAME, LATER, limit=9)) == 4
        assert {row.shopper for row in store.rejected()} == {None, str(store.pseudonym(NAME))}
        pseudonym = store.pseudonym(NAME)
    assert search(folder, NAME.encode()) == []
    assert pseudonym.hex not in SECRET
    assert search(folder, SECRET.encode()) == []


def search(folder: Path, content: bytes) -> list[Path]:
    found = [file for file in folder.rglob("*") if file.is_file()]
    assert found
    return [file for file in found if content in file.read_bytes()]


def test_pseudonyms_are_taken_for_user_ids(tmp_path: Path) -> None:
    with BehaviourStore(tmp_path, privacy=PRIVACY) as store:
        store.append([click("anna"), click("anna", product_id="q"), click("ben")])
        (busiest, other) = store.busiest(5)
        assert Pseudonym.written(busiest) == store.pseudonym("anna") == store.pseudonym(busiest)
        assert store.history(busiest, LATER, limit=9) == store.history("anna", LATER, limit=9)
        assert len(store.history(other, LATER, limit=9)) == 1
        assert store.append([click(busiest)]) == 0


def test_the_same_shopper_is_found_whatever_the_way_in(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("user_id,kind,at,product_id\n 用户\t,click,2025-05-01T00:00:00Z,p\n")
    with BehaviourStore(tmp_path / "store", privacy=PRIVACY) as store:
        assert store.import_events([file]).imported == 1
        assert store.append([click("用户")]) == 0
        assert len(store.history("用户", LATER, limit=9)) == 1


def test_a_wrong_key_is_told(tmp_path: Path) -> None:
    BehaviourStore(tmp_path, privacy=PRIVACY).close()
    other = PrivacySettings(key=SecretStr("another secret of this length"))
    with pytest.raises(DataError, match=r"fingerprint \w{12}, .* setting privacy.key: it holds an"):
        BehaviourStore(tmp_path, privacy=other)
    lost = PrivacySettings(key_file=tmp_path / "lost.key")
    for read_only in (True, False):
        with pytest.raises(DataError, match=r"lost.key: there is none; put the right key there"):
            BehaviourStore(tmp_path, read_only=read_only, privacy=lost)
    assert not (tmp_path / "lost.key").exists()
    BehaviourStore(tmp_path, privacy=PRIVACY).close()


def test_the_first_store_makes_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "configuration" / "pseudonym.key"
    privacy = PrivacySettings(key_file=file)
    with caplog.at_level(logging.INFO):
        with BehaviourStore(tmp_path / "a", privacy=privacy) as store:
            store.append([click("anna")])
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert str(file) in caplog.text
        with BehaviourStore(tmp_path / "b", privacy=privacy) as store:
            store.append([click("anna")])
    assert len(caplog.records) == 1
    assert file.read_text().strip() not in caplog.text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with BehaviourStore(tmp_path / "a", read_only=True, privacy=privacy) as store:
        assert len(store.history("anna", LATER, limit=9)) == 1


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("", 0o600, "holds no key"),
        ("tiny&\n", 0o600, "shorter than 16 characters"),
        (f"{SECRET}\n", 0o644, "chmod 600"),
        (f"{SECRET}\n", 0o620, "chmod 600"),
    ],
)
def test_unusable_key_files(tmp_path: Path, content: str, mode: int, message: str) -> None:
    file = tmp_path / "a.key"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=message) as caught:
        BehaviourStore(tmp_path / "store", privacy=PrivacySettings(key_file=file))
    assert str(file) in str(caught.value)
    assert not content.strip() or content.strip() not in str(caught.value)


def test_a_store_of_nobody_needs_no_key(tmp_path: Path) -> None:
    privacy = PrivacySettings(key_file=tmp_path / "none.key")
    with BehaviourStore(tmp_path / "none", read_only=True, privacy=privacy) as store:
        assert store.history("anna", LATER, limit=1) == []
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_the_schema_before_is_refused(tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect(tmp_path / FILE_NAME) as connection:
        connection.execute(
            """CREATE TABLE event (user_key UBIGINT, user_id VARCHAR);
            CREATE TABLE meta (schema_version VARCHAR, key_probe UBIGINT, runs DOUBLE);
            INSERT INTO meta VALUES ('1', 0, 0)"""
        )
    with pytest.raises(DataError, match=r"schema version 1, .*import the events again"):
        BehaviourStore(tmp_path, privacy=PRIVACY)
