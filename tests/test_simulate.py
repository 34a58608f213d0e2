import numpy as np
import pytest
from pydantic import ValidationError
from typer import Typer
from typer.testing import CliRunner

from eval.benchmarks.estimators import EstimatorBenchmark
from eval.position_bias.curves import position_based_em
from eval.simulation import ShopDesign, SimulatedShop
from reranker.cli.benchmarks.estimators import estimators, show
from reranker.cli.output import console
from reranker.errors import ConfigError


@pytest.mark.parametrize("click_model", ["position-based", "cascade"])
@pytest.mark.parametrize("kind", ["random", "common", "taste"])
def test_the_exact_value_is_what_visits_show(click_model, kind) -> None:
    shop = SimulatedShop(ShopDesign(click_model=click_model, tastes=3, queries=2))
    policy = shop.policy(kind, temperature=0.7)
    logs = shop.visit(policy, 60_000, 2, np.random.default_rng(1)).logs
    by_shopper = np.bincount(logs.shoppers[logs.request], logs.grade) / 2
    error = by_shopper.std() / np.sqrt(len(by_shopper))
    assert abs(by_shopper.mean() - shop.value(policy)) < 4 * error


def test_the_best_order_is_the_best() -> None:
    shop = SimulatedShop(ShopDesign(personal=0.8))
    values = [shop.value(shop.policy(kind)) for kind in ("random", "common", "taste")]
    assert values == sorted(values)
    assert shop.value(shop.best()) > values[-1]
    visits = shop.visit(shop.best(), 10, 2, np.random.default_rng(0))
    assert (visits.logs.propensity == 1).all()
    assert visits.logs.list_propensity == pytest.approx(np.ones(20))


def test_simulation_is_seeded() -> None:
    shop, again = SimulatedShop(ShopDesign(), seed=3), SimulatedShop(ShopDesign(), seed=3)
    first = shop.visit(shop.policy("taste"), 20, 3, np.random.default_rng(5)).logs
    second = again.visit(again.policy("taste"), 20, 3, np.random.default_rng(5)).logs
    assert (first.grade == second.grade).all()
    assert (first.product == second.product).all()
    assert len(first) == 60


def test_logged_propensities_are_those_of_the_draw() -> None:
    shop = SimulatedShop(ShopDesign(tastes=1, queries=1, candidates=4, examination=(1.0, 0.5)))
    logs = shop.visit(shop.policy("common"), 50_000, 2, np.random.default_rng(2)).logs
    for product in range(4):
        for place in (1, 2):
            rows = (logs.product == product) & (logs.position == place)
            assert rows.sum() / len(logs) == pytest.approx(logs.propensity[rows][0], abs=0.007)


def test_designs_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="3 places, but only 2"):
        ShopDesign(candidates=2)
    with pytest.raises(ValidationError, match="above 1"):
        ShopDesign(attraction=(0.1, 0.9))
    with pytest.raises(ValidationError, match="mean 1"):
        ShopDesign(generosity=(0.5, 1.0))
    long = ShopDesign(candidates=20, examination=(1.0,) * 8, click_model="cascade")
    shop = SimulatedShop(long)
    with pytest.raises(ConfigError, match="too many"):
        shop.value(shop.policy("random"))


def test_the_command_prints_both_forms() -> None:
    app = Typer()
    app.command()(estimators)
    told = CliRunner().invoke(app, ["--repetitions", "20", "--sessions", "2000", "--json"])
    assert told.exit_code == 0, told.output
    result = EstimatorBenchmark.model_validate_json(told.stdout)
    assert len(result.estimators) == 29
    assert {row.repetitions + row.refused for row in result.estimators} == {20}
    assert len(result.curves) == 6
    assert [row.clicks for row in result.real] == [130, 130, 157, 157]
    with console.capture() as shown:
        show(result)
    assert "doubly-robust" in shown.get()
    assert "Open Bandit, bts" in shown.get()


def test_a_shop_can_be_planned_with() -> None:
    """How many shoppers does a curve of a given width take? More give a narrower one."""
    shop = SimulatedShop(ShopDesign(queries=4))
    widths = []
    for shoppers in (500, 4000):
        logs = shop.visit(shop.policy("common"), shoppers, 5, np.random.default_rng(0)).logs
        place = position_based_em(logs).examination[1]
        widths.append(place.high - place.low)
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(8), rel=0.2)
