"""Published tables: bounded for each shopper, noisy, and paid for."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from reranker.cli.app import app
from reranker.errors import ConfigError, DataError
from reranker.schema import BehaviourEvent, EventKind, Product
from reranker.settings import Settings
from reranker.wiring import catalogue_file
from retrieval.behaviour import BehaviourStore
from retrieval.privacy.publication import Publication, publish
from retrieval.product_table import ProductTable

pytest.importorskip("opendp", reason="OpenDP is not installed: install shelfwise[privacy]")

AT = datetime(2025, 5, 1, tzinfo=UTC)
PRODUCTS = [f"p{n}" for n in range(50)]
SHOPPERS = 300


def event(user: str, kind: EventKind, product: str, hours: int = 1) -> BehaviourEvent:
    at = AT - timedelta(hours=hours)
    return BehaviourEvent(user_id=user, kind=kind, at=at, product_id=product)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BehaviourStore]:
    """All shoppers buy p0 and see p1; half click p1; one of them does everything a thousandfold."""
    with BehaviourStore(tmp_path / "store") as opened:
        for n in range(SHOPPERS):
            opened.append(
                [
                    event(f"u{n}", EventKind.PURCHASE, "p0"),
                    event(f"u{n}", EventKind.PURCHASE, "p0", hours=2),
                    event(f"u{n}", EventKind.IMPRESSION, "p1"),
                    *([event(f"u{n}", EventKind.CLICK, "p1")] if n % 2 else []),
                ]
            )
        zealot = [
            event("zealot", kind, product, hours)
            for kind in (EventKind.PURCHASE, EventKind.CLICK)
            for product in PRODUCTS
            for hours in range(1, 20)
        ]
        opened.append(zealot)
        yield opened


def published(store: BehaviourStore, target: Path, **options: float) -> Publication:
    given = {"epsilon": 1.0, "budget": 1000.0, "contributions": 2, **options}
    return publish(store, PRODUCTS, target, as_of=AT, **given)  # type: ignore[arg-type]


def test_counts_are_of_shoppers_and_near_the_truth(store: BehaviourStore, tmp_path: Path) -> None:
    store.append([event("late", EventKind.PURCHASE, "p0", hours=0)])
    store.set_consent("u0", "analytics", granted=False)
    done = published(store, tmp_path / "a.csv", epsilon=40)
    rows = {row["product_id"]: row for row in pyarrow.csv.read_csv(tmp_path / "a.csv").to_pylist()}
    assert done.products == len(rows)
    assert abs(rows["p0"]["buyers"] - (SHOPPERS - 1)) <= 4
    assert abs(rows["p1"]["shown_to"] - (SHOPPERS - 1)) <= 4
    assert abs(rows["p1"]["click_rate"] - 0.5) < 0.05


def test_nobody_counts_more_than_allowed(store: BehaviourStore, tmp_path: Path) -> None:
    done = published(store, tmp_path / "a.parquet", epsilon=2000.0, budget=9999.0)
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    # So little noise that all counts are exact: the zealot buys two products of fifty, at most.
    assert sum(row["buyers"] for row in rows) <= SHOPPERS + 2
    assert done.buyers_scale == pytest.approx(2 / 1000, rel=0.01)
    assert done.clicks_scale == pytest.approx(4 / 1000, rel=0.01)


def test_noise_is_as_wide_as_it_says(store: BehaviourStore, tmp_path: Path) -> None:
    offs = []
    for number in range(60):
        done = published(store, tmp_path / f"{number}.parquet", epsilon=4.0)
        rows = pq.read_table(tmp_path / f"{number}.parquet").to_pylist()
        (row,) = (row for row in rows if row["product_id"] == "p0")
        offs.append(abs(row["buyers"] - SHOPPERS))
    # The mean of 60 distances is within 4 standard errors of the scale, which is 1.
    scale = done.buyers_scale
    assert scale == pytest.approx(1.0, rel=0.01)
    assert abs(sum(offs) / 60 - scale) < 4 * 1.1 * scale / math.sqrt(60) + 0.1


def test_noise_alone_is_not_published(store: BehaviourStore, tmp_path: Path) -> None:
    tables = [tmp_path / f"{number}.parquet" for number in range(20)]
    for table in tables:
        published(store, table, epsilon=1.0)
    names = [row["product_id"] for table in tables for row in pq.read_table(table).to_pylist()]
    assert names.count("p0") == names.count("p1") == 20
    assert len(names) - 40 < 60  # about one of a half of the counts, in each of the halves


def test_the_budget_is_kept(store: BehaviourStore, tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    assert published(store, target, epsilon=0.6, budget=1.0).spent == pytest.approx(0.6)
    assert published(store, target, epsilon=0.4, budget=1.0).spent == pytest.approx(1.0)
    target.unlink()
    with pytest.raises(DataError, match=r"of the budget of 1 .* 1 is spent: nothing was published"):
        published(store, target, epsilon=0.1, budget=1.0)
    assert not target.exists()
    # What was spent is not given back by erasing or by writing the store anew.
    store.rewrite({})
    with pytest.raises(DataError, match="is spent"):
        published(store, target, epsilon=0.1, budget=1.0)


@pytest.mark.parametrize(("name", "epsilon"), [("a.xlsx", 1.0), ("a.csv", 0.0), ("a.csv", -1.0)])
def test_wrong_arguments_cost_nothing(
    store: BehaviourStore, tmp_path: Path, name: str, epsilon: float
) -> None:
    with pytest.raises(ConfigError):
        published(store, tmp_path / name, epsilon=epsilon)
    assert published(store, tmp_path / "b.csv", epsilon=1.0, budget=1.0).spent == 1.0


def test_a_table_that_cannot_be_written_costs_nothing(
    store: BehaviourStore, tmp_path: Path
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    for target in (tmp_path / "folder.csv", tmp_path / "file" / "a.csv"):
        with pytest.raises(OSError, match=target.parent.name):
            published(store, target, epsilon=1.0, budget=1.0)
    assert published(store, tmp_path / "b.csv", epsilon=1.0, budget=1.0).spent == 1.0


def test_the_command(store: BehaviourStore, tmp_path: Path) -> None:
    store.close()
    settings = Settings.load(None, {"store.path": tmp_path / "store"})
    table, *_ = ProductTable.empty().upsert([Product(product_id="p0", title="Milk")])
    table.save(catalogue_file(settings))
    words = ["privacy", "publish", str(tmp_path / "a.csv"), "--at", "2025-05-01"]
    words += ["--store", str(tmp_path / "store"), "--epsilon", "0.9", "--contributions", "1"]
    told = CliRunner().invoke(app, words)
    assert "1 products:" in told.output, told.output
    assert "epsilon 0.9, in all 0.9 of 1; noise of scale 2.2" in " ".join(told.output.split())
    assert isinstance(CliRunner().invoke(app, words).exception, DataError)
