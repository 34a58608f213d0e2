"""`shelfwise profile --all` and `shelfwise labels build`, from imported files to files."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from eval.logs import read_impressions
from reranker.cli.app import app
from reranker.errors import ConfigError
from reranker.schema import UserProfile

PRODUCTS = "product_id,title,brand\ntea,Green tea,Tarn\nmug,Red mug,Tarn\n"
EVENTS = """user_id,kind,at,product_id,query,request_id,position
ann-1234,impression,2025-05-01T10:00:00Z,tea,tea,r1,1
ann-1234,impression,2025-05-01T10:00:00Z,mug,tea,r1,2
ann-1234,click,2025-05-01T10:01:00Z,mug,,r1,
ann-1234,purchase,2025-05-01T10:09:00Z,mug,,,
bob-1234,view,2025-05-02T10:00:00Z,tea,,,
cat-1234,impression,2025-05-02T10:00:00Z,tea,,r2,1
"""
AT = ("--as-of", "2025-05-20")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "products.csv").write_text(PRODUCTS)
    (folder / "events.csv").write_text(EVENTS)
    shop = folder / "store"
    for room in ("catalogue", "behaviour"):
        name = "products.csv" if room == "catalogue" else "events.csv"
        done = run(room, "import", folder / name, "--store", shop)
        assert done.exit_code == 0, done.output
    return shop


def test_all_profiles_are_those_of_one_after_the_other(store: Path, tmp_path: Path) -> None:
    lines, table = tmp_path / "all.jsonl", tmp_path / "all.parquet"
    for file in (lines, table):
        done = run("profile", "--all", "--out", file, *AT, "--store", store, "--json")
        assert json.loads(done.stdout.splitlines()[-1])["profiles"] == 2
    profiles = [UserProfile.model_validate_json(each) for each in lines.read_text().splitlines()]
    assert {each.event_count for each in profiles} == {1, 2}
    for each in profiles:
        alone = run("profile", each.user_id, *AT, "--store", store, "--json")
        assert UserProfile.model_validate_json(alone.stdout) == each
    rows: list[dict[str, Any]] = pq.read_table(table).to_pylist()
    assert [UserProfile.model_validate_json(row["profile"]) for row in rows] == profiles
    assert [row["summary"] for row in rows] == [each.summary for each in profiles]
    assert not any(b"1234" in file.read_bytes() for file in (lines, table))


def test_the_profile_of_a_shopper_in_words(store: Path) -> None:
    shown = run("profile", "ann-1234", *AT, "--store", store)
    assert shown.exit_code == 0
    assert "Bought lately: Red mug." in shown.stdout


def test_labels_are_read_by_evaluation(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.parquet"
    done = run("labels", "build", "--out", file, *AT, "--store", store, "--json")
    report = json.loads(done.stdout)
    assert (report["lists"], report["items"]) == (2, 3)
    first, second = read_impressions(file)
    assert [(item.product_id, item.grade) for item in first.items] == [("tea", 0), ("mug", 3)]
    assert (first.query, second.request_id) == ("tea", "r2")
    people = run("labels", "build", "--out", file, *AT, "--store", store)
    assert "2 lists with 3 products" in people.stdout
    assert b"1234" not in file.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile"], "name a shopper"),
        (["profile", "--all"], "goes with --out"),
        (["profile", "ann", "--all", "--out", "x.jsonl"], "without a shopper"),
        (["profile", "ann", "--all", "--write"], "without a shopper"),
        (["profile", "--all", "--write", "--out", "x.jsonl"], "--out FILE or with --write"),
        (["profile", "--all", "--out", "x.txt"], r"\.parquet or \.jsonl"),
        (["labels", "build", "--out", "x.csv"], r"\.parquet"),
        (["labels", "build", "--out", "x.parquet", "--purpose", "gossip"], "training or analytics"),
    ],
)
def test_wrong_arguments_are_named(store: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments, "--store", store)
    assert isinstance(done.exception, ConfigError)
    with pytest.raises(ConfigError, match=message):
        raise done.exception
