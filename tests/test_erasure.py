"""A shopper who is forgotten is gone from every byte of the store."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from reranker.cli.app import app
from reranker.errors import DataError
from reranker.schema import BehaviourEvent
from reranker.settings import PrivacySettings
from retrieval.behaviour import FILE_NAME, BehaviourStore
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.privacy.erasure import Erasure, forget
from retrieval.privacy.traces import PROFILES, read_shoppers, write_shoppers

KEY = "a secret of the tests that is long enough"
PRIVACY = PrivacySettings(key=SecretStr(KEY))
NAME = "Zwetschgenmus-Liebhaberin"
QUERY = "unverwechselbarer wunsch"
LATER = datetime(2030, 1, 1, tzinfo=UTC)
NOON = datetime(2025, 5, 1, 12, tzinfo=UTC)


def shop(folder: Path) -> Path:
    """A store in which one shopper has left traces of every kind among those of 400 others."""
    store = folder / "store"
    (folder / "a.csv").write_text(
        "user_id,kind,at,product_id,query,session_id,request_id,position\n"
        + "".join(
            f"{user},{kind},2025-05-01T1{n % 10}:00Z,p{n},{query} {n},s{user} {n},r {user} {n},\n"
            for user, query in ((NAME, QUERY), *((f"u{n}", f"wish of {n}") for n in range(400)))
            for n in range(20)
            for kind in ("search", "click")
        )
        + f"{NAME},clik,2025-05-01,p,{QUERY},s,r,\n"
        + f",click,2025-05-01,p,{QUERY} lost,s,r {NAME} 3,\n"
        + f"2025-05-01,click,{NAME},p,x,s,r,\nu1,click,never,p,x,s,r,\n"
    )
    at = "2024-06-01T10:30:00Z"
    documents = [
        {"user_query": f"{QUERY} by phone", "query_id": "q", "client_id": "phone", "timestamp": at},
        {"action_name": "click", "timestamp": at, "user_id": NAME, "client_id": "phone",
         "query_id": "q", "object_id": "p"},
        {"action_name": "click", "timestamp": at, "user_id": NAME, "client_id": "kiosk",
         "query_id": "k", "object_id": "p"},
        {"action_name": "click", "timestamp": at, "user_id": "u1", "client_id": "kiosk",
         "query_id": "l", "object_id": "p"},
        {"action_name": "click", "timestamp": at, "client_id": "kiosk", "query_id": "m",
         "object_id": "p"},
    ]  # fmt: skip
    (folder / "a.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in documents))
    with BehaviourStore(store, privacy=PRIVACY) as opened:
        opened.import_events([folder / "a.csv"])
        opened.import_events([folder / "a.jsonl"])
        moments = (NOON + timedelta(seconds=n) for n in range(9))
        opened.append(
            [
                BehaviourEvent(user_id=NAME, kind="search", at=at, query=f"{QUERY} live")  # type: ignore[arg-type]
                for at in moments
            ]
        )
        opened.set_consent(NAME, "training", granted=True)
        opened.set_consent("u1", "training", granted=False)
        names = [NAME, "phone", "u1"]
        shoppers = [opened.pseudonym(name) for name in names]
        fingerprint = opened.fingerprint
    written = store / PROFILES / "written"
    written.mkdir(parents=True)
    (written / f"{shoppers[0].hex}.en.json").write_text(f'"{QUERY}"')
    (written / f"{shoppers[2].hex}.en.json").write_text('"wish of 1"')
    adapter(folder / "models" / "adapter", fingerprint, shoppers)
    adapter(folder / "models" / "stranger", fingerprint, shoppers[2:])
    adapter(store / "adapters" / "unknown", "of another key", shoppers[2:])
    return store


def adapter(folder: Path, fingerprint: str, shoppers: list[Pseudonym]) -> None:
    folder.mkdir(parents=True)
    write_shoppers(folder, shoppers)
    card = {"shoppers": "shoppers.bin", "key_fingerprint": fingerprint, "rows": 7}
    (folder / "data_card.json").write_text(json.dumps(card))


def traces(folder: Path) -> list[tuple[str, str]]:
    """Search all files for the shopper, in every form that a program may have given them."""
    sought: dict[str, bytes] = {"id": NAME.encode(), "query": QUERY.encode()}
    with BehaviourStore(folder, read_only=True, privacy=PRIVACY) as store:
        pseudonyms = {name: store.pseudonym(name) for name in (NAME, "phone")}
    for name, pseudonym in pseudonyms.items():
        number = pseudonym.uuid.int
        flipped = number ^ (1 << 127)  # as DuckDB keeps a UUID: a signed number of 128 bits
        sought |= {
            f"{name} hex": pseudonym.hex.encode(),
            f"{name} dashed": str(pseudonym.uuid).encode(),
            f"{name} big": pseudonym.bytes,
            f"{name} little": number.to_bytes(16, "little"),
            f"{name} DuckDB": flipped.to_bytes(16, "little"),
            f"{name} halves": flipped.to_bytes(16, "big")[8:] + flipped.to_bytes(16, "big")[:8],
            f"{name} head": number.to_bytes(16, "little")[:8],
        }
    files = [file for file in folder.rglob("*") if file.is_file()]
    contents = [(file.name, file.read_bytes()) for file in files]
    return [
        (what, name)
        for what, bytes_ in sought.items()
        for name, content in contents
        if bytes_ in content or bytes_.decode(errors="ignore") == name
    ]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    shop(folder)
    return folder


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "copy") / "store"


def forgotten(folder: Path, user_id: str = NAME) -> Erasure:
    with BehaviourStore(folder, privacy=PRIVACY) as opened:
        done = forget(opened, folder, user_id, models=[folder.parent / "models"])
        assert opened.history(user_id, LATER, limit=99) == []
        assert opened.append([]) == 0
    return done


def test_no_byte_is_left(store: Path) -> None:
    kinds = {what for what, _ in traces(store)}
    assert {"query", f"{NAME} DuckDB", "phone DuckDB"} <= kinds
    with BehaviourStore(store, read_only=True, privacy=PRIVACY) as opened:
        before, u1 = opened.count(), opened.history("u1", LATER, limit=99)
    done = forgotten(store)
    assert traces(store) == []
    assert len(list((store / PROFILES).rglob("*.json"))) == 1
    assert done.model_dump(exclude={"models", "elsewhere"}) == {
        "pseudonyms": 2, "events": 52, "consents": 1, "links": 2, "quarantined": 3,
        "written_profiles": 1,
    }  # fmt: skip
    with BehaviourStore(store, read_only=True, privacy=PRIVACY) as opened:
        assert opened.count() == before - done.events
        assert opened.history("u1", LATER, limit=99) == u1 != []
        assert len(opened.history("kiosk", LATER, limit=99)) == 1
        assert [each.recorded_at is None for each in opened.consent("u1")] == [True, False, True]
        (row,) = opened.rejected()
        assert row.reason.startswith("not a time: never")
        with opened.reading() as connection:
            assert connection.execute("SELECT count(*) FROM client").fetchall() == [(1,)]
    assert forgotten(store).events == 0


def test_models_are_listed_and_told(store: Path) -> None:
    models = store.parent / "models"
    done = forgotten(store)
    assert {(each.folder.name, each.certain) for each in done.models} == {
        ("adapter", True), ("unknown", False),
    }  # fmt: skip
    card = json.loads((models / "adapter" / "data_card.json").read_text())
    assert (card["erased_shoppers"], card["rows"]) == (1, 7)
    assert len(read_shoppers(models / "adapter" / "shoppers.bin")) == 1
    assert "erased_shoppers" not in (models / "stranger" / "data_card.json").read_text()
    assert [each.folder.name for each in forgotten(store).models] == ["unknown"]


def test_a_pseudonym_is_enough(store: Path) -> None:
    with BehaviourStore(store, read_only=True, privacy=PRIVACY) as opened:
        pseudonym = str(opened.pseudonym(NAME))
    assert forgotten(store, pseudonym).events == 52
    # What is refused for a row that was shifted can only be found by the id itself.
    assert {what for what, _ in traces(store)} == {"id"}
    assert forgotten(store).quarantined == 1
    assert traces(store) == []


def test_what_another_object_has_open_is_not_lost(store: Path) -> None:
    with (
        BehaviourStore(store, privacy=PRIVACY) as opened,
        BehaviourStore(store, privacy=PRIVACY) as other,
    ):
        with pytest.raises(DataError, match="another object of this process still has the store"):
            forget(opened, store, NAME)
        assert other.count() == 16_054
    assert traces(store) == []
    with BehaviourStore(store, privacy=PRIVACY) as opened:
        assert opened.count() == 16_002


def test_access_rights_stay(store: Path) -> None:
    (store / FILE_NAME).chmod(0o600)
    forgotten(store)
    assert stat.S_IMODE((store / FILE_NAME).stat().st_mode) == 0o600


def test_without_room_nothing_changes(store: Path) -> None:
    before = (store / FILE_NAME).read_bytes()
    with BehaviourStore(store, privacy=PRIVACY) as opened:
        with pytest.raises(DataError, match=r"could not be written anew .*nothing of it has chang"):
            opened.rewrite({"event": "SELECT error('no room') FROM event"})
        assert opened.count() == 16_054
        assert [file.name for file in store.glob(f"{FILE_NAME}*")] == [FILE_NAME]
    assert (store / FILE_NAME).read_bytes() == before


def test_a_client_forgets_nobody_else(store: Path) -> None:
    assert forgotten(store, "kiosk").events == 1
    with BehaviourStore(store, read_only=True, privacy=PRIVACY) as opened:
        assert len(opened.history(NAME, LATER, limit=999)) == 51


FORGET = """
import sys
from pathlib import Path
from pydantic import SecretStr
from reranker.settings import PrivacySettings
from retrieval.behaviour import BehaviourStore
from retrieval.privacy.erasure import forget
folder, key, user, models = sys.argv[1:]
def tell(what, done, total):
    print(done, flush=True)
    sys.stdin.readline()
with BehaviourStore(Path(folder), privacy=PrivacySettings(key=SecretStr(key))) as store:
    forget(store, Path(folder), user, models=[Path(models)], progress=tell)
"""


def test_killed_at_any_step_it_can_be_done_again(original: Path, tmp_path: Path) -> None:
    step, ended = 0, False
    while not ended:
        folder = shutil.copytree(original, tmp_path / str(step))
        store = folder / "store"
        command = [sys.executable, "-c", FORGET, str(store), KEY, NAME, str(folder / "models")]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(step):
                process.stdout.readline()
                process.stdin.write("\n")
                process.stdin.flush()
            ended = not process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
        with BehaviourStore(store, privacy=PRIVACY) as opened:
            assert opened.count() in (16_054, 16_002)
            assert len(opened.history("u7", LATER, limit=999)) == 40
        forgotten(store)
        assert traces(store) == []
        step += 1
    assert step > 5


def test_the_command(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFWISE_PRIVACY__KEY", KEY)
    words = ["--store", str(store), "--models", str(store.parent / "models")]
    told = json.loads(CliRunner().invoke(app, ["privacy", "export", NAME, *words]).stdout)
    assert (len(told["events"]), len(told["pseudonyms"]), len(told["refused_rows"])) == (52, 2, 1)
    assert {each["purpose"]: each["granted"] for each in told["consent"]}["training"]
    assert {Path(each).name for each in told["models"]} == {"unknown", "adapter"}
    assert [UUID(name[:32]) for name in told["written_profiles"]]
    mistyped = CliRunner().invoke(app, ["privacy", "forget", NAME, *words, "--models", "modles"])
    assert (mistyped.exit_code, "'modles' does not exist" in mistyped.output) == (2, True)
    shown = CliRunner().invoke(app, ["privacy", "forget", NAME, *words])
    assert "removed: 52 events, 1 records of consent, 2 links" in " ".join(shown.output.split())
    assert "trained on the shopper:" in shown.output
    assert NAME not in shown.output
    assert traces(store) == []
    again = CliRunner().invoke(app, ["privacy", "forget", NAME, *words, "--json"])
    assert json.loads(again.stdout)["events"] == 0
    hidden = CliRunner().invoke(app, ["config", "--json"]).stdout
    assert KEY not in hidden
    assert json.loads(hidden)["privacy.key"]["origin"] == "environment"
