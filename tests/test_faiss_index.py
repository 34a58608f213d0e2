"""The vector index against brute force, on clustered vectors like those of products."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from reranker.errors import DataError, IndexMismatchError
from retrieval.faiss_index import VectorIndex
from retrieval.faiss_training import Truth

DIMENSION = 32
COUNT = 6000


def _clustered(count: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(0).standard_normal((60, DIMENSION))
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(60, size=count)] + rng.standard_normal((count, DIMENSION)) * 0.5
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


VECTORS = _clustered(COUNT, 1)
KEYS = np.arange(COUNT, dtype=np.int64) * 3 + 7
QUERIES = _clustered(40, 2)


def _build(kind: str, keys: np.ndarray = KEYS, vectors: np.ndarray = VECTORS) -> VectorIndex:
    limit = 10**6 if kind == "exact" else 100
    return VectorIndex.build(keys, vectors, fingerprint="m", exact_limit=limit, ann_recall=0.98)


@pytest.fixture(params=["exact", "approximate"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _brute(query: np.ndarray, k: int, keys: np.ndarray, vectors: np.ndarray) -> list[int]:
    scores = vectors @ query
    return keys[np.lexsort((keys, -scores))[:k]].tolist()


def _recall(index: VectorIndex, k: int, keys: np.ndarray, vectors: np.ndarray) -> float:
    shared = [
        len(set(index.search(query, k)[0].tolist()) & set(_brute(query, k, keys, vectors))) / k
        for query in QUERIES
    ]
    return float(np.mean(shared))


def test_exact_search_is_brute_force() -> None:
    index = _build("exact")
    for query in QUERIES:
        keys, scores = index.search(query, 25)
        assert keys.tolist() == _brute(query, 25, KEYS, VECTORS)
        np.testing.assert_allclose(scores, np.sort(VECTORS @ query)[::-1][:25], atol=1e-5)
    assert index.manifest.kind == "exact"
    assert index.manifest.recall == 1.0


def test_approximate_search_keeps_its_promise() -> None:
    index = _build("approximate")
    assert index.manifest.kind == "approximate"
    assert 1 < index.manifest.nprobe < index.manifest.cells
    assert _recall(index, 100, KEYS, VECTORS) >= 0.97
    assert index.manifest.recall >= 0.97


def test_the_recall_is_measured_whatever_the_order_of_the_keys() -> None:
    order = np.random.default_rng(5).permutation(COUNT)
    made = _build("approximate", KEYS[order], VECTORS[order]).manifest
    assert made.recall >= 0.97
    assert made.nprobe < made.cells


def test_a_large_index_keeps_its_vectors_in_float16_and_an_exact_one_as_they_are() -> None:
    index = _build("approximate")
    assert index.manifest.numbers == "float16"
    kept = VECTORS.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(index.vectors(KEYS[::50]), kept[::50])
    assert _build("exact").manifest.numbers == "float32"


@pytest.mark.parametrize(("clusters", "apart"), [(30, 0.004), (2, 0.002)])
def test_where_float16_would_cost_recall_the_vectors_stay_as_they_are(
    clusters: int, apart: float
) -> None:
    noise = np.random.default_rng(6).standard_normal((COUNT, DIMENSION)) * apart
    dense = (VECTORS[np.arange(COUNT) % clusters] + noise).astype(np.float32)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    index = _build("approximate", vectors=dense)
    assert index.manifest.numbers == "float32"
    assert index.manifest.recall >= 0.97
    assert index.manifest.nprobe < index.manifest.cells
    wanted = VectorIndex.build(KEYS, VECTORS, fingerprint="m", exact_limit=0, ann_recall=1.0)
    assert wanted.manifest.numbers == "float32"


def test_what_float16_costs_is_found_in_parts_as_in_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(7).standard_normal((COUNT, DIMENSION)) * 0.004
    dense = (VECTORS[np.arange(COUNT) % 30] + noise).astype(np.float32)
    truth = Truth(dense, dense[:40])
    whole = truth.recall_in_half()
    monkeypatch.setattr("retrieval.faiss_training._ROUNDED_BATCH", 700)
    assert truth.recall_in_half() == pytest.approx(whole, abs=1e-3)
    assert 0.5 < whole < 0.999


def test_an_index_of_before_float16_goes_on_as_it_is(tmp_path: Path) -> None:
    old = VectorIndex.build(
        KEYS[:5000], VECTORS[:5000], fingerprint="m", exact_limit=0, ann_recall=1.0
    )
    old.save(tmp_path)
    file = tmp_path / "manifest.json"
    written = json.loads(file.read_text())
    del written["numbers"]
    file.write_text(json.dumps(written))
    index = VectorIndex.load(tmp_path, fingerprint="m", dimension=DIMENSION)
    index.add(KEYS[5000:], VECTORS[5000:])
    np.testing.assert_array_equal(index.vectors(KEYS[::50]), VECTORS[::50])
    assert index.manifest.numbers == "float32"


def test_lower_demands_look_into_fewer_cells() -> None:
    low = VectorIndex.build(KEYS, VECTORS, fingerprint="m", exact_limit=0, ann_recall=0.5)
    assert low.manifest.nprobe < _build("approximate").manifest.nprobe


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 0.7])
def test_filters_act_before_the_cut(kind: str, share: float) -> None:
    index = _build(kind)
    # The allowed ones lie farthest from the query: a cut before the filter would find none.
    for query in QUERIES[:10]:
        far = np.argsort(VECTORS @ query)[: int(share * COUNT)]
        allowed = np.sort(KEYS[far])
        keys, _ = index.search(query, 20, allowed)
        kept = VECTORS[far]
        if kind == "approximate":
            kept = kept.astype(np.float16).astype(np.float32)
        expected = _brute(query, 20, KEYS[far], kept)
        assert len(keys) == min(20, len(far))
        assert set(keys.tolist()) <= set(allowed.tolist())
        if kind == "exact" or share < 0.5:
            assert keys.tolist() == expected
            # Rounding trades places at the cut at most.
            true = _brute(query, 20, KEYS[far], VECTORS[far])
            assert len(set(keys.tolist()) - set(true)) <= (kind == "approximate")


def test_nothing_allowed_finds_nothing(kind: str) -> None:
    keys, scores = _build(kind).search(QUERIES[0], 5, np.empty(0, np.int64))
    assert keys.tolist() == scores.tolist() == []


def test_unknown_keys_are_never_found(kind: str) -> None:
    keys, _ = _build(kind).search(QUERIES[0], 5, np.array([1, 7, 10**7]))
    assert keys.tolist() == [7]


def test_ties_go_by_key_even_across_the_cut(kind: str) -> None:
    vectors = VECTORS.copy()
    twins = np.random.default_rng(3).choice(COUNT, 500, replace=False)
    vectors[twins] = QUERIES[0]
    order = np.random.default_rng(4).permutation(COUNT)
    index = _build(kind, KEYS[order], vectors[order])
    keys, scores = index.search(QUERIES[0], 20)
    assert keys.tolist() == np.sort(KEYS[twins])[:20].tolist()
    assert len(set(scores.tolist())) == 1


def test_updates_equal_a_new_index() -> None:
    index = _build("exact", KEYS[:4000], VECTORS[:4000])
    index.remove(np.append(KEYS[100:900], 999_999))
    index.add(KEYS[4000:], VECTORS[4000:])
    replaced = KEYS[2000:2050]
    index.add(replaced, VECTORS[:50])
    vectors = VECTORS.copy()
    vectors[2000:2050] = VECTORS[:50]
    left = np.r_[0:100, 900:COUNT]
    fresh = _build("exact", KEYS[left], vectors[left])
    assert np.array_equal(index.keys, fresh.keys)
    assert index.manifest.products == len(index) == len(left)
    for query in QUERIES:
        np.testing.assert_array_equal(index.search(query, 30)[0], fresh.search(query, 30)[0])
    np.testing.assert_array_equal(index.vectors(replaced), VECTORS[:50])


def test_approximate_updates_keep_recall_and_forget_the_removed() -> None:
    index = _build("approximate", KEYS[:4000], VECTORS[:4000])
    index.remove(KEYS[:500])
    index.add(KEYS[4000:], VECTORS[4000:])
    assert _recall(index, 50, KEYS[500:], VECTORS[500:]) >= 0.95
    with pytest.raises(RuntimeError):
        index.vectors(KEYS[:1])


def test_outgrowing_the_limit_makes_it_approximate() -> None:
    index = VectorIndex.build(
        KEYS[:1000], VECTORS[:1000], fingerprint="m", exact_limit=1500, ann_recall=0.98
    )
    index.add(KEYS[1000:1500], VECTORS[1000:1500])
    assert index.manifest.kind == "exact"
    index.add(KEYS[1500:], VECTORS[1500:])
    assert index.manifest.kind == "approximate"
    assert index.manifest.trained_on == COUNT
    assert _recall(index, 100, KEYS, VECTORS) >= 0.97


def test_fits_knows_when_to_build_anew() -> None:
    index = _build("approximate")
    assert index.fits(COUNT * 2, exact_limit=100, ann_recall=0.98)
    assert not index.fits(COUNT * 2 + 1, exact_limit=100, ann_recall=0.98)
    assert not index.fits(100, exact_limit=100, ann_recall=0.98)
    assert not index.fits(COUNT, exact_limit=100, ann_recall=0.9)
    assert not index.fits(COUNT, exact_limit=101, ann_recall=0.98)


def test_threads_read_the_same(kind: str) -> None:
    index = _build(kind)
    alone = [index.search(query, 20)[0].tolist() for query in QUERIES]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: index.search(query, 20)[0].tolist(), QUERIES))
    assert together == alone


def test_a_saved_index_answers_the_same(kind: str, tmp_path: Path) -> None:
    index = _build(kind)
    index.save(tmp_path)
    index.remove(KEYS[:10])
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path, fingerprint="m", dimension=DIMENSION)
    assert loaded.manifest == index.manifest
    assert np.array_equal(loaded.keys, KEYS[10:])
    for query in QUERIES:
        np.testing.assert_array_equal(loaded.search(query, 9)[0], index.search(query, 9)[0])
    loaded.remove(KEYS[10:20])
    loaded.add(KEYS[:5], VECTORS[:5])
    assert len(loaded) == COUNT - 15
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".faiss", ".json"]


def test_a_kill_while_saving_leaves_the_old_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _build("exact").save(tmp_path)
    smaller = _build("exact", KEYS[:10], VECTORS[:10])
    # Stops where the index file is in place and the manifest not yet.
    monkeypatch.setattr("retrieval.faiss_index._sha256", lambda _path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        smaller.save(tmp_path)
    monkeypatch.undo()
    assert len(VectorIndex.load(tmp_path, fingerprint="m", dimension=DIMENSION)) == COUNT


@pytest.mark.parametrize(
    ("change", "named"),
    [({"fingerprint": "other"}, "model m"), ({"dimension": 64}, "dimension 32")],
)
def test_another_model_is_refused(tmp_path: Path, change: dict[str, object], named: str) -> None:
    _build("exact", KEYS[:9], VECTORS[:9]).save(tmp_path)
    expected = {"fingerprint": "m", "dimension": DIMENSION, **change}
    with pytest.raises(IndexMismatchError, match=f"{named}.*shelfwise index build"):
        VectorIndex.load(tmp_path, **expected)


def test_another_format_is_refused(tmp_path: Path) -> None:
    _build("exact", KEYS[:9], VECTORS[:9]).save(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(IndexMismatchError, match="format 99"):
        VectorIndex.load(tmp_path, fingerprint="m", dimension=DIMENSION)


@pytest.mark.parametrize("name", ["manifest.json", "vectors-1.faiss"])
@pytest.mark.parametrize("way", ["cut", "flip", "gone"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, way: str) -> None:
    _build("exact", KEYS[:9], VECTORS[:9]).save(tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    if way == "gone":
        path.unlink()
    else:
        path.write_bytes(content if way == "flip" else content[: len(content) // 2])
    with pytest.raises((DataError, IndexMismatchError), match="shelfwise index build"):
        VectorIndex.load(tmp_path, fingerprint="m", dimension=DIMENSION)


def test_an_empty_index_can_be_kept_and_filled(tmp_path: Path) -> None:
    empty = np.empty((0, DIMENSION), np.float32)
    _build("exact", KEYS[:0], empty).save(tmp_path)
    index = VectorIndex.load(tmp_path, fingerprint="m", dimension=DIMENSION)
    assert index.search(QUERIES[0], 3)[0].tolist() == []
    index.add(KEYS[:5], VECTORS[:5])
    assert len(index.search(QUERIES[0], 9)[0]) == 5


def test_progress_ends_at_the_whole(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        VectorIndex.build(
            KEYS,
            VECTORS,
            fingerprint="m",
            exact_limit=0,
            ann_recall=0.9,
            progress=lambda *at: seen.append(at),
        )
    assert seen[-1] == (COUNT, COUNT)
    assert not caplog.text
