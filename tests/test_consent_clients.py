"""What a shopper says holds for the browsers that nobody else has signed in from."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from event_files import write_csv, write_jsonl
from reranker.cli.app import app
from reranker.settings import PrivacySettings
from retrieval.behaviour import BehaviourStore


def test_files_of_consent_also_hold_for_own_clients(tmp_path: Path) -> None:
    click = {"action_name": "click", "timestamp": "2025-05-01", "object_id": "p"}
    seen = [("anna", "phone"), ("anna", "kiosk"), ("ben", "kiosk"), ("anna", "tablet")]
    rows = [{**click, "user_id": user, "client_id": client} for user, client in seen]
    said = [("anna", "training", "no"), ("tablet", "training", "yes"), ("anna", "analytics", "no")]
    with BehaviourStore(tmp_path / "store") as store:
        store.import_events([write_jsonl(tmp_path / "a.jsonl", rows)])
        names = ("user_id", "purpose", "granted")
        file = write_csv(tmp_path / "b.csv", [dict(zip(names, each, strict=True)) for each in said])
        report = store.import_consent([file])
        assert (report.records, report.shoppers) == (3, 2)
        assert {
            client: [each.granted for each in store.consent(client)]
            for client in ("phone", "kiosk", "tablet")
        } == {"phone": [True, False, False], "kiosk": [True] * 3, "tablet": [True, True, False]}


@pytest.mark.parametrize("way", ["file", "command"])
def test_what_a_browser_has_refused_stays_refused(tmp_path: Path, way: str) -> None:
    click = {"action_name": "click", "timestamp": "2025-05-01", "object_id": "p"}
    rows = [{**click, "user_id": "anna", "client_id": client} for client in ("phone", "tablet")]
    words = ["--store", str(tmp_path / "store")]

    def say(granted: bool) -> None:
        said = {"user_id": "anna", "purpose": "training", "granted": "yes" if granted else "no"}
        asked = ["import-consent", str(write_csv(tmp_path / "b.csv", [said]))]
        if way == "command":
            asked = ["consent", "anna", "--grant" if granted else "--revoke", "training"]
        assert CliRunner().invoke(app, ["privacy", *asked, *words]).exit_code == 0

    def answers() -> list[bool]:
        with BehaviourStore(
            tmp_path / "store", privacy=PrivacySettings(default_consent=())
        ) as store:
            return [store.consent(name)[1].granted for name in ("anna", "phone", "tablet")]

    with BehaviourStore(tmp_path / "store") as store:
        store.import_events([write_jsonl(tmp_path / "a.jsonl", rows)])
        store.set_consent("phone", "training", granted=False)
    say(granted=True)
    assert answers() == [True, False, True]
    say(granted=False)
    assert answers() == [False, False, False]
