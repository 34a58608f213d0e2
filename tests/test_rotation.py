"""A new key for all pseudonyms, and what is too old deleted for good."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from reranker.cli.app import app
from reranker.errors import ConfigError
from reranker.schema import BehaviourEvent
from reranker.settings import PrivacySettings, Settings
from reranker.wiring import import_events
from retrieval.behaviour import FILE_NAME, BehaviourStore
from retrieval.behaviour.keys import KeyRing
from retrieval.privacy.erasure import forget
from retrieval.privacy.retention import retain
from retrieval.privacy.rotation import rotate
from retrieval.privacy.traces import PROFILES, trained_on, write_shoppers

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=1)


def fill(folder: Path, privacy: PrivacySettings) -> None:
    (folder.parent / "bad.csv").write_text("user_id,kind,at,product_id\nanna,clik,2025-05-01,p\n")
    documents = [
        {"user_query": "milk", "query_id": "q", "client_id": "phone", "timestamp": "2024-06-01"},
        {"action_name": "click", "timestamp": "2024-06-01", "user_id": "anna",
         "client_id": "phone", "query_id": "q", "object_id": "p"},
    ]  # fmt: skip
    (folder.parent / "a.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in documents))
    with BehaviourStore(folder, privacy=privacy) as store:
        store.import_events([folder.parent / "bad.csv", folder.parent / "a.jsonl"])
        store.append(
            [
                BehaviourEvent(
                    user_id=user, kind="view", at=NOW - timedelta(days=n), product_id="p"
                )  # type: ignore[arg-type]
                for user in ("anna", "ben")
                for n in range(1, 60)
            ]
        )
        store.set_consent("anna", "training", granted=False)
        shoppers = [store.pseudonym("anna")]
        model = folder.parent / "models" / "first"
        model.mkdir(parents=True)
        write_shoppers(model, shoppers)
        card = {"shoppers": "shoppers.bin", "key_fingerprint": store.fingerprint}
        (model / "data_card.json").write_text(json.dumps(card))
    (folder / PROFILES).mkdir()
    (folder / PROFILES / f"{shoppers[0].hex}.json").write_text("likes milk")


def check(folder: Path, privacy: PrivacySettings) -> None:
    """All that is known of a shopper is found again under the pseudonym of now."""
    with BehaviourStore(folder, privacy=privacy) as store:
        assert len(store.history("anna", LATER, limit=99)) == 60
        assert [each.granted for each in store.consent("anna")] == [True, False, True]
        (row,) = store.rejected()
        assert row.shopper == str(store.pseudonym("anna"))
        assert len(trained_on([folder.parent], store.pseudonyms, [store.pseudonym("anna")])) == 1
        assert trained_on([folder.parent], store.pseudonyms, [store.pseudonym("ben")]) == ()
        assert store.import_events([folder.parent / "a.jsonl"]).imported == 0


def test_everything_is_found_under_the_new_key(tmp_path: Path) -> None:
    folder, privacy = tmp_path / "store", PrivacySettings(key_file=tmp_path / "a.key")
    fill(folder, privacy)
    before = (folder / FILE_NAME).read_bytes()
    shutil.copytree(folder, tmp_path / "other")
    with BehaviourStore(folder, privacy=privacy) as store:
        older = store.pseudonym("anna")
        done = rotate(store, folder, privacy)
        assert (done.shoppers, done.keys, done.place) == (3, 2, str(tmp_path / "a.key"))
        assert store.pseudonym("anna") != older
    flipped = (older.uuid.int ^ (1 << 127)).to_bytes(16, "little")
    assert flipped in before
    for file in folder.rglob("*"):
        assert file.is_dir() or flipped not in file.read_bytes()
        assert older.hex not in file.name
    check(folder, privacy)
    # Another store stays at its own generation of the same ring, and can follow.
    check(tmp_path / "other", privacy)
    with BehaviourStore(tmp_path / "other", privacy=privacy) as store:
        assert rotate(store, tmp_path / "other", privacy).keys == 2
    check(tmp_path / "other", privacy)
    with BehaviourStore(folder, privacy=privacy) as store:
        assert rotate(store, folder, privacy).keys == 3
        done = forget(store, folder, "anna", models=[tmp_path / "models"])
    assert (done.events, done.consents, done.quarantined, len(done.models)) == (61, 1, 1, 1)


def test_keys_in_the_settings_are_not_ours_to_write(tmp_path: Path) -> None:
    folder, one = tmp_path / "store", "the first secret of this shop"
    privacy = PrivacySettings(key=SecretStr(one))
    fill(folder, privacy)
    with (
        BehaviourStore(folder, privacy=privacy) as store,
        pytest.raises(ConfigError, match="append a new secret behind a comma"),
    ):
        rotate(store, folder, privacy)
    check(folder, privacy)
    both = PrivacySettings(key=SecretStr(f"{one}, and the second secret"))
    check(folder, both)
    with BehaviourStore(folder, privacy=both) as store:
        assert rotate(store, folder, both).keys == 2
    check(folder, both)


ROTATE = """
import sys
from pathlib import Path
from reranker.settings import PrivacySettings
from retrieval.behaviour import BehaviourStore
from retrieval.privacy.rotation import rotate
folder, file = map(Path, sys.argv[1:])
privacy = PrivacySettings(key_file=file)
def tell(what, done, total):
    print(done, flush=True)
    sys.stdin.readline()
with BehaviourStore(folder, privacy=privacy) as store:
    rotate(store, folder, privacy, progress=tell)
"""


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_killed_rotation_leaves_one_key_or_the_other(tmp_path: Path, step: int) -> None:
    folder, privacy = tmp_path / "store", PrivacySettings(key_file=tmp_path / "a.key")
    fill(folder, privacy)
    command = [sys.executable, "-c", ROTATE, str(folder), str(privacy.key_file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(step):
            assert process.stdout.readline()
            process.stdin.write("\n")
            process.stdin.flush()
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    check(folder, privacy)
    assert len(KeyRing.load(privacy).keys) == 2
    with BehaviourStore(folder, privacy=privacy) as store:
        rotate(store, folder, privacy)
        assert store.pseudonyms.generation >= 2
    check(folder, privacy)
    assert [file.name for file in folder.iterdir()] == [FILE_NAME]


def test_old_events_go_with_their_bytes(tmp_path: Path) -> None:
    folder, privacy = tmp_path / "store", PrivacySettings(key_file=tmp_path / "a.key")
    fill(folder, privacy)
    with BehaviourStore(folder, privacy=privacy) as store:
        done = retain(store, folder, 30)
        assert (done.events, done.quarantined) == (62, 0)
        first, _ = store.time_range() or (NOW, NOW)
        assert first >= done.before
        assert len(store.history("anna", LATER, limit=99)) == 29
        assert [each.granted for each in store.consent("anna")] == [True, False, True]
        assert retain(store, folder, 30).events == 0
    assert b"milk" not in b"".join(file.read_bytes() for file in folder.rglob("*"))


def test_imports_leave_out_what_may_not_be_kept(tmp_path: Path) -> None:
    settings = Settings.load(None, {"store.path": tmp_path / "store", "privacy.retain_days": 30})
    rows = "".join(f"u,view,{NOW - timedelta(days=n)},p\n" for n in (1, 29, 31, 400))
    (tmp_path / "a.csv").write_text(f"user_id,kind,at,product_id\n{rows}")
    report = import_events(settings, [tmp_path / "a.csv"])
    assert (report.imported, report.ignored, report.rejected_count) == (2, 2, 0)


def test_the_commands(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    settings = Settings.load(None, {"store.path": folder})
    fill(folder, settings.privacy)
    words = ["--store", str(folder)]
    refused = CliRunner().invoke(app, ["privacy", "retain", *words])
    assert isinstance(refused.exception, ConfigError)
    kept = CliRunner().invoke(app, ["privacy", "retain", "--days", "30", *words])
    assert "62 events before" in kept.output
    told = CliRunner().invoke(app, ["privacy", "rotate", *words])
    assert "3 pseudonyms replaced" in " ".join(told.output.split())
    with BehaviourStore(folder, privacy=settings.privacy) as store:
        assert len(store.history("anna", LATER, limit=99)) == 29
