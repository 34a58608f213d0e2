"""Complete Journey: baskets, discounts and coupons of campaigns become events."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.datasets.complete_journey import campaign_events
from reranker.settings import LabelSettings
from retrieval.behaviour import BehaviourStore
from retrieval.labels import build_labels

START, END = datetime(2017, 3, 1), datetime(2017, 4, 1)  # noqa: DTZ001 - as in the data
TABLES: dict[str, list[dict[str, Any]]] = {
    "campaign_descriptions": [
        {"campaign_id": 1, "campaign_type": "Type B", "start_date": START, "end_date": END},
        {"campaign_id": 8, "campaign_type": "Type A", "start_date": START, "end_date": END},
    ],
    "campaigns": [
        {"campaign_id": 1, "household_id": 7},
        {"campaign_id": 8, "household_id": 7},
        {"campaign_id": 8, "household_id": 9},
    ],
    "coupons": [
        {"coupon_upc": 100, "product_id": 11, "campaign_id": 1},
        {"coupon_upc": 100, "product_id": 12, "campaign_id": 1},
        {"coupon_upc": 101, "product_id": 12, "campaign_id": 1},
        {"coupon_upc": 800, "product_id": 13, "campaign_id": 8},
    ],
    "coupon_redemptions": [
        {"household_id": 7, "coupon_upc": 100, "campaign_id": 1,
         "redemption_date": datetime(2017, 3, 5)},  # noqa: DTZ001
        {"household_id": 9, "coupon_upc": 800, "campaign_id": 8,
         "redemption_date": datetime(2017, 3, 6)},  # noqa: DTZ001
    ],
    "transactions": [
        {"household_id": 7, "product_id": 12,
         "transaction_timestamp": datetime(2017, 3, 5, 17, 30)},  # noqa: DTZ001
        {"household_id": 7, "product_id": 11,
         "transaction_timestamp": datetime(2017, 3, 4, 9)},  # noqa: DTZ001
        {"household_id": 9, "product_id": 13,
         "transaction_timestamp": datetime(2017, 3, 6, 10)},  # noqa: DTZ001
    ],
}  # fmt: skip


@pytest.fixture
def campaigns(tmp_path: Path) -> Path:
    for name, rows in TABLES.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    campaign_events(tmp_path, tmp_path / "events.parquet")
    return tmp_path / "events.parquet"


def test_offers_are_shown_and_coupons_are_taken_up(campaigns: Path) -> None:
    rows = pq.read_table(campaigns).to_pylist()
    told = [tuple(row.values()) for row in rows if row["kind"] == "click"]
    assert told == [
        ("7", "click", "12", datetime(2017, 3, 5, 17, 30), "campaign-1"),  # noqa: DTZ001
        ("9", "click", "13", datetime(2017, 3, 6, 10), "campaign-8"),  # noqa: DTZ001
    ]
    shown = {(row["user_id"], row["product_id"]) for row in rows if row["kind"] == "impression"}
    assert shown == {("7", "11"), ("7", "12")}  # of type A it is not known who got what
    assert len(rows) == 4


def test_a_purchase_is_put_down_to_the_campaign(campaigns: Path, tmp_path: Path) -> None:
    sales = tmp_path / "sales.csv"
    sales.write_text("user_id,kind,at,product_id\n7,purchase,2017-03-05T17:30:00,12\n")
    with BehaviourStore(tmp_path / "store") as store:
        report = store.import_events([campaigns, sales])
        assert (report.imported, report.rejected_count) == (5, 0)
        labels = build_labels(
            store,
            tmp_path / "labels.parquet",
            datetime(2017, 5, 1, tzinfo=UTC),
            settings=LabelSettings(product_window_hours=1),
        )
    assert labels.attributed == {"click": {"request": 1}, "purchase": {"touch": 1}}
