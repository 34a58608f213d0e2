"""What an evaluation is asked for, what it uses again, and what it corrects for."""

from pathlib import Path

import numpy as np
import pytest

from eval.run import evaluate
from eval.run.ablations import corrected
from eval.run.identity import identity_of
from eval.run.inputs import read_inputs
from eval.run.results import Ablation
from eval.statistics.comparison import compare, holm
from evaluation_shop import ShopFiles, make_shop, no_models, request_of
from reranker.errors import ConfigError
from reranker.ports import no_progress
from reranker.settings import Settings


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> ShopFiles:
    return make_shop(tmp_path_factory.mktemp("shop"))


def test_a_measure_that_hardly_a_case_has_leaves_the_comparisons_of_others(
    shop: ShopFiles, tmp_path: Path
) -> None:
    settings = Settings.load(None, {"evaluation.measures": "nDCG@10,HitRate(rel=3)@10"})
    result = evaluate(
        request_of(shop, tmp_path, "random", "popularity"), settings, no_models(settings)
    )
    assert [each.measure for each in result.comparisons] == ["nDCG@10"]
    assert result.rankers[0].measured("HitRate(rel=3)@10").value is None


def test_ablations_are_corrected_for_their_number() -> None:
    rng = np.random.default_rng(0)
    shoppers = range(40)
    found = []
    for gain in (0.25, 0.25, 0.0):
        values = {"without": [0.0] * 40, "llm": (gain + rng.normal(size=40) * 0.6).tolist()}
        (comparison,) = compare("nDCG@10", "without", values, shoppers)
        given = {"question": "?", "whole": "llm", "without": "without", "cases": 40}
        found.append(Ablation(**given, comparison=comparison, same_first=0.5, rank_change=1.0))
    none = found[0].model_copy(update={"comparison": None})
    first, absent, *rest = corrected([found[0], none, *found[1:]])
    assert absent == none
    plain = [each.comparison.p_value for each in found if each.comparison]
    assert [e.comparison.p_holm for e in (first, *rest) if e.comparison] == list(holm(plain))
    assert holm(plain) != tuple(plain)


def test_orders_by_other_weights_of_a_local_embedder_are_not_used_again(
    shop: ShopFiles, tmp_path: Path
) -> None:
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"old")
    settings = Settings.load(None, {"retrieval.embedder": str(folder)})
    inputs = read_inputs(request_of(shop, tmp_path, "recall"), settings, no_progress)
    before = identity_of(inputs, settings)
    assert identity_of(inputs, settings) == before
    (folder / "model.safetensors").write_bytes(b"newer")
    assert identity_of(inputs, settings) != before


@pytest.mark.parametrize("hours", [1e9, 1e300])
def test_an_embargo_beyond_all_dates_is_named(
    shop: ShopFiles, tmp_path: Path, hours: float
) -> None:
    settings = Settings.load(None, {"evaluation.embargo_hours": hours})
    with pytest.raises(ConfigError, match=r"evaluation\.embargo_hours: 1e"):
        evaluate(request_of(shop, tmp_path, "random"), settings, no_models(settings))


@pytest.mark.parametrize(
    ("name", "value"), [("embargo_hours", "inf"), ("embargo_hours", "nan"), ("measures", "")]
)
def test_a_setting_that_says_nothing_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Settings.load(None, {f"evaluation.{name}": value})
