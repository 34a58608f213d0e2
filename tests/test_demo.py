"""The demo's parts on the seed shop: the full one takes minutes and is `make demo`."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from eval.datasets import seed_example
from reranker.cli.demo import _prepare
from reranker.cli.demo_page import write_page
from reranker.cli.demo_report import SEED, DemoReport, evidence, run_scenario, show_scenario
from reranker.errors import ConfigError
from reranker.models.embedded import EmbeddedModel
from reranker.settings import Settings


def progress(stage: str, done: int, total: int) -> None: ...


def test_the_store_is_made_once_and_nobody_elses_is_touched(tmp_path: Path) -> None:
    settings = Settings.load(None, {"store.path": tmp_path / "store"})
    _prepare(settings, seed_example(), seed_example(), progress)
    made = (tmp_path / "store" / "catalogue" / "products.arrow").stat().st_mtime_ns
    _prepare(settings, seed_example(), seed_example(), progress)
    assert (tmp_path / "store" / "catalogue" / "products.arrow").stat().st_mtime_ns == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]

    other = Settings.load(None, {"store.path": tmp_path / "own"})
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "behaviour.duckdb").write_text("precious")
    with pytest.raises(ConfigError, match="--store"):
        _prepare(other, seed_example(), seed_example(), progress)
    assert (tmp_path / "own" / "behaviour.duckdb").read_text() == "precious"


def test_a_killed_preparation_is_taken_up(tmp_path: Path) -> None:
    settings = Settings.load(None, {"store.path": tmp_path / "store"})

    def killed(stage: str, done: int, total: int) -> None:
        if "embed" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _prepare(settings, seed_example(), seed_example(), killed)
    assert not (tmp_path / "store").exists()
    _prepare(settings, seed_example(), seed_example(), progress)
    assert (tmp_path / "store" / "demo.json").exists()


def test_the_page_and_the_terminal_show_every_shopper(
    seed_store: Path,
    tmp_path: Path,
    model: EmbeddedModel,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = Settings.load(None, {"store.path": seed_store, "model.adapter": "none"})
    report = run_scenario(SEED, settings, model, progress)
    show_scenario(report)
    shown = " ".join(capsys.readouterr().out.split())
    assert "shopper A" in shown
    assert "ranks at chance" in shown
    write_page(DemoReport(scenarios=(report,)), tmp_path / "demo.html")
    page = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert page.count("Shopper ") == 3
    assert "Laptop 14 inch with 16 GB memory" in page
    assert "http" not in page
    assert SEED.at == datetime(2026, 3, 5, tzinfo=UTC)
    laptop = next(
        item
        for item in report.comparisons[0].searches[1].result.items
        if item.product.product_id == "laptop"
    )
    assert evidence(laptop) == "bought once"
