import asyncio
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from questions import ask
from reranker.cli.tune import files_in
from reranker.errors import ConfigError, DataError
from reranker.listwise import ListwiseRanker
from reranker.models.adapter import CARD_FILE, WEIGHTS_FILE, adapter_of, read_card, read_data_card
from reranker.models.adapter_use import check_prompt
from reranker.models.embedded import EmbeddedModel
from reranker.models.merging import write_merged
from reranker.schema import (
    Candidate,
    Product,
    Prompt,
    Readout,
    SearchRequest,
    TemplateRef,
    UserProfile,
)
from reranker.settings import ModelSettings, RankingSettings
from reranker.training.tuning import evaluate, tune
from tuning_shop import tuning_settings


@pytest.fixture(scope="module")
def adapter(tiny_folder: Path, toy_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    tune(tuning_settings(tiny_folder), [files_in(toy_files)], run, name="toy")
    return run / "adapter"


def load(tiny_folder: Path, adapter: Path | None, dtype: str = "float32") -> EmbeddedModel:
    name = "none" if adapter is None else str(adapter)
    settings = ModelSettings(name=str(tiny_folder), dtype=dtype, adapter=name)  # type: ignore[arg-type]
    return EmbeddedModel.load(settings)


def scores(model: EmbeddedModel, *prompts: Prompt) -> list[tuple[float, ...]]:
    async def read() -> list[tuple[float, ...]]:
        found = [answer.logprobs for answer in await model.read(prompts)]
        await model.aclose()
        return found

    return asyncio.run(read())


def tuned_ask(adapter: Path, seed: int, readout: Readout = "verdict") -> Prompt:
    (template,) = read_card(adapter).templates
    return ask(readout, seed).model_copy(update={"template": template})


def test_merged_weights_score_as_the_adapter_does(tiny_folder: Path, adapter: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from reranker.models.rendering import PromptRenderer, load_tokenizer

    prompts = [tuned_ask(adapter, seed) for seed in range(3)]
    found = scores(load(tiny_folder, adapter), *prompts)
    base = AutoModelForCausalLM.from_pretrained(str(tiny_folder), dtype=torch.float32)
    applied = PeftModel.from_pretrained(base, str(adapter)).eval()
    renderer = PromptRenderer(load_tokenizer(tiny_folder))
    for prompt, ours in zip(prompts, found, strict=True):
        rendered = renderer.render(prompt)
        with torch.no_grad():
            logits = applied(input_ids=torch.tensor([rendered.token_ids])).logits[0]
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        expected = [
            float(logprobs[place - 1, rendered.token_ids[place]])
            for place in rendered.verdict_positions
        ]
        assert ours == pytest.approx(expected, abs=1e-3)
    untuned = scores(load(tiny_folder, None), *prompts)
    assert max(abs(a - b) for a, b in zip(found[0], untuned[0], strict=True)) > 0.1


def test_a_merged_folder_is_the_same_model(
    tiny_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    card = write_merged(
        tiny_folder, adapter, tmp_path / "merged", name=str(tiny_folder), dtype="float32"
    )
    prompt = tuned_ask(adapter, 1)
    merged = load(tmp_path / "merged", None)
    assert merged.spec.adapter == card.identity
    assert merged.spec.readouts == {"verdict"}
    assert scores(merged, prompt)[0] == pytest.approx(
        scores(load(tiny_folder, adapter), prompt)[0], abs=1e-5
    )
    assert json.loads((tmp_path / "merged" / CARD_FILE).read_text())["name"] == card.name
    # Whoever asks to be forgotten is looked for in models, too.
    assert read_data_card(tmp_path / "merged") == read_data_card(adapter)
    with pytest.raises(ConfigError, match=r"merged in already: set model\.adapter = none"):
        load(tmp_path / "merged", adapter)
    with pytest.raises(ConfigError, match="there already"):
        write_merged(
            tiny_folder, adapter, tmp_path / "merged", name=str(tiny_folder), dtype="float32"
        )


def test_the_spec_names_the_adapter_and_its_readout(tiny_folder: Path, adapter: Path) -> None:
    loaded = load(tiny_folder, adapter)
    card = read_card(adapter)
    assert loaded.spec.adapter == card.identity == f"toy@{card.weights_sha256[:8]}"
    assert loaded.spec.readouts == {"verdict"}
    with pytest.raises(ConfigError, match=r"ranking\.readout = labels"):
        ListwiseRanker(loaded, RankingSettings(readout="labels"), profile_tokens=32)


def test_a_ranker_asks_as_the_adapter_was_tuned(tiny_folder: Path, adapter: Path) -> None:
    for chosen, readout in ((adapter, "verdict"), (None, "labels")):
        ranker = ListwiseRanker(
            load(tiny_folder, chosen), RankingSettings(min_label_mass=0), profile_tokens=32
        )
        candidates = tuple(
            Candidate(product=Product(product_id=f"p{n}", title=f"thing {n}"), recall_rank=n,
                      recall_score=1 / n)
            for n in range(1, 4)
        )  # fmt: skip
        judged = asyncio.run(ranker.judge(SearchRequest(query="thing"), None, candidates))
        assert judged.outcome == "model"
        assert judged.template is not None
        assert judged.template.name == f"listwise_{readout}"


def test_the_embedded_default_ranks_with_the_adapter_that_comes_along() -> None:
    """A shopper who bought games for one console wants those of it, whatever the order shown."""
    model = EmbeddedModel.load(ModelSettings())
    folder = adapter_of(ModelSettings())
    assert folder is not None
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8_000_000
    card = read_card(folder)
    assert model.spec.adapter == card.identity
    assert read_data_card(folder).shoppers is None
    titles = [
        "Madden NFL 12 - Nintendo Wii", "Horizon Zero Dawn - PlayStation 4",
        "Barbie Fashion Designer - PC", "Uncharted 4: A Thief's End - PlayStation 4",
        "Zhu Zhu Pets - Nintendo DS", "The Last of Us Remastered - PlayStation 4",
    ]  # fmt: skip
    profile = UserProfile(
        user_id="u",
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        event_count=2,
        summary="Bought lately: God of War - PlayStation 4; Bloodborne - PlayStation 4.",
    )
    ranker = ListwiseRanker(model, RankingSettings(), profile_tokens=card.profile_tokens)
    for shift in range(3):
        order = titles[shift:] + titles[:shift]
        candidates = [
            Candidate(product=Product(product_id=title, title=title), recall_rank=n, recall_score=1)
            for n, title in enumerate(order, 1)
        ]
        request = SearchRequest(query=None, k=6)
        judged = asyncio.run(ranker.judge(request, profile, candidates))
        assert judged.outcome == "model"
        first = {
            title for title, place in zip(order, judged.places, strict=True) if place in (1, 2, 3)
        }
        assert all(title.endswith("PlayStation 4") for title in first)


def test_it_ranks_as_it_was_validated(tiny_folder: Path, adapter: Path, toy_files: Path) -> None:
    settings = tuning_settings(tiny_folder)
    chosen = settings.model.model_copy(update={"adapter": str(adapter)})
    tuned = settings.model_copy(update={"model": chosen})
    found = evaluate(tuned, files_in(toy_files), lists=8, shuffles=2)
    untuned = evaluate(settings, files_in(toy_files), lists=8, shuffles=2)
    assert found.measures["lists"] == 8
    assert found.measures["nDCG@10"] > untuned.measures["nDCG@10"] + 0.15
    assert found.instability is not None


def test_an_adapter_of_another_model_is_refused(
    tiny_folder: Path, adapter: Path, smollm2_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="has other weights"):
        load(smollm2_folder, adapter)
    with pytest.raises(ConfigError, match="has other weights"):
        write_merged(smollm2_folder, adapter, tmp_path / "m", name="smollm2", dtype="float32")
    assert list(tmp_path.iterdir()) == []
    # Another number type is the same model.
    assert load(tiny_folder, adapter, "bfloat16").spec.adapter is not None


def changed(adapter: Path, folder: Path, **update: object) -> Path:
    shutil.copytree(adapter, folder)
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps({**card, **update}))
    return folder


def test_an_adapter_of_other_templates_is_refused(
    tiny_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    (template,) = read_card(adapter).templates
    edited = template.model_copy(update={"sha256": "0" * 64}).model_dump()
    with pytest.raises(ConfigError, match="another text of listwise_verdict"):
        load(tiny_folder, changed(adapter, tmp_path / "edited", templates=[edited]))
    future = template.model_copy(update={"version": 99}).model_dump()
    with pytest.raises(ConfigError, match=r"no listwise_verdict\.v99\.en"):
        load(tiny_folder, changed(adapter, tmp_path / "future", templates=[future]))
    with pytest.raises(ConfigError, match="gives others here"):
        load(tiny_folder, changed(adapter, tmp_path / "answer", answer=[" ja"]))


def test_a_prompt_of_another_kind_is_refused(tiny_folder: Path, adapter: Path) -> None:
    card = read_card(adapter)
    (template,) = card.templates
    good = tuned_ask(adapter, 1)
    check_prompt(card, good)
    with pytest.raises(ConfigError, match=r"ranking\.readout = verdict"):
        check_prompt(card, tuned_ask(adapter, 1, "labels"))
    for update in ({"version": 99}, {"name": "listwise_other"}, {"sha256": "1" * 64}):
        other = good.model_copy(update={"template": template.model_copy(update=update)})
        with pytest.raises(ConfigError, match="it was tuned with the template"):
            scores(load(tiny_folder, adapter), other)
    chinese = TemplateRef(
        name=template.name, version=template.version, language="zh", sha256="2" * 64
    )
    check_prompt(card, good.model_copy(update={"template": chinese}))


def test_damaged_and_unknown_adapters_are_named(
    tiny_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(adapter, broken)
    content = bytearray((broken / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (broken / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(DataError, match="SHA-256 is not the one of the card"):
        load(tiny_folder, broken)
    (broken / CARD_FILE).unlink()
    with pytest.raises(ConfigError, match=r"shelfwise\.json is missing"):
        load(tiny_folder, broken)
    with pytest.raises(ConfigError, match="no such folder; known by name"):
        load(tiny_folder, Path("nobody"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="this folder holds no adapter; known by name"):
        load(tiny_folder, tmp_path / "empty")
