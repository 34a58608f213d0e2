import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.errors import DataError
from reranker.schema import Filters, Product
from retrieval.lexical import LexicalIndex
from retrieval.lexical_fields import analyse
from retrieval.product_table import ProductTable

WORDS = ["lamp", "desk", "酸奶", "希腊", "mug", "running", "shoes", "无糖"]
BRANDS = ["", "Tarn", "TARN", "straße", "塔恩", "x" * 400, "Caf\u00e9", "CAFE\u0301"]
CATEGORIES = ["", "食品", "食品 > 乳品", "Home", "home > Light", "Home>light > Desk"]
PRICES = [0.0, 1.0, 9.99, 10.0, 1e9]


def table_of(*products: Product) -> ProductTable:
    return ProductTable.empty().upsert(products)[0]


def random_product(number: int, rng: random.Random) -> Product:
    return Product(
        product_id=f"p{number}",
        title=" ".join(rng.choices(WORDS, k=rng.randint(1, 3))),
        description=" ".join(rng.choices(WORDS, k=rng.randint(0, 4))),
        brand=rng.choice([None, *BRANDS]),
        category=rng.choice([None, *CATEGORIES]),
        price=rng.choice([None, *PRICES]),
        in_stock=rng.random() < 0.5,
    )


@st.composite
def filters(draw: st.DrawFn) -> Filters:
    bounds = sorted(draw(st.lists(st.sampled_from(PRICES), min_size=2, max_size=2)))
    return Filters(
        categories=draw(st.lists(st.sampled_from(CATEGORIES), max_size=2).map(tuple)),
        brands=draw(st.lists(st.sampled_from(BRANDS), max_size=2).map(tuple)),
        min_price=draw(st.none() | st.just(bounds[0])),
        max_price=draw(st.none() | st.just(bounds[1])),
        in_stock=draw(st.none() | st.booleans()),
    )


@pytest.fixture(scope="module")
def shop() -> ProductTable:
    rng = random.Random(5)
    return table_of(*(random_product(number, rng) for number in range(300)))


@pytest.fixture(scope="module", params=["one segment", "several segments"])
def index(
    request: pytest.FixtureRequest, shop: ProductTable, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LexicalIndex]:
    """The shop added from its last key to its first, so that no order comes by itself."""
    parts = 1 if request.param == "one segment" else 3
    with LexicalIndex.create(tmp_path_factory.mktemp("lexical")) as built:
        for rows in reversed(np.array_split(np.arange(len(shop)), parts)):
            built.add(shop, rows[::-1])
            built.commit()
        assert built._index.searcher().num_segments == parts
        yield built


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lexical"


def build(folder: Path, *products: Product) -> tuple[LexicalIndex, ProductTable]:
    table = table_of(*products)
    index = LexicalIndex.create(folder)
    index.add(table, range(len(table)))
    index.commit()
    return index, table


def found(index: LexicalIndex, query: str, k: int = 10, wanted: Filters | None = None) -> list[int]:
    keys, scores = index.search(query, k=k, filters=wanted or Filters())
    assert keys.dtype == np.int64
    assert len(keys) == len(scores) <= k
    return [int(key) for key in keys]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Men's RUNNING-shoes", ["men", "s", "running", "shoes"]),
        ("無", ["無"]),
        ("无糖希腊酸奶500g", ["无糖", "希腊", "酸奶", "500g"]),
        ("长江大桥", ["长江", "大桥", "长江大桥"]),
        ("ＡＢＣ　１２", ["abc", "12"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("Ⅳ ﬁt", ["iv", "fit"]),
        ("!!! \x00 —", []),
        ("", []),
    ],
)
def test_text_is_cut_into_folded_words(text: str, words: list[str]) -> None:
    assert analyse(text) == words


@given(st.text(max_size=40))
def test_words_hold_no_space_that_would_cut_them_again(text: str) -> None:
    words = analyse(text)
    assert " ".join(words).split() == words


def test_a_part_of_a_chinese_word_and_an_inflected_one_are_found(folder: Path) -> None:
    index, _ = build(
        folder,
        Product(product_id="a", title="无糖希腊酸奶"),
        Product(product_id="b", title="南京市长江大桥模型"),
        Product(product_id="c", title="Running shoes", description="for a long road"),
    )
    assert found(index, "酸奶") == [0]
    assert found(index, "长江") == [1]
    assert found(index, "shoe run") == [2]
    assert found(index, "ROADS") == [2]
    assert found(index, "电饭煲") == []


def test_brand_category_and_attributes_are_searched_and_the_title_counts_more(
    folder: Path,
) -> None:
    index, _ = build(
        folder,
        Product(product_id="a", title="Red chair", description="goes with a lamp"),
        Product(product_id="b", title="Red lamp", description="goes with a chair"),
        Product(product_id="c", title="Mug", brand="Kestrel", attributes={"colour": "teal"}),
        Product(product_id="d", title="Cup", category="Home > Kitchen"),
    )
    assert found(index, "lamp") == [1, 0]
    assert found(index, "chair") == [0, 1]
    assert found(index, "kestrel teal") == [2]
    assert found(index, "kitchen") == [3]


@pytest.mark.parametrize("query", ["", "  ", "!?()", "AND", "title:", "*", "lam*", '"', "\x00"])
def test_nothing_in_a_query_is_syntax(folder: Path, query: str) -> None:
    index, _ = build(folder, Product(product_id="a", title="Desk lamp"))
    assert found(index, query) == []
    assert found(index, f"{query} LAMP") == [0]


def test_a_query_may_be_very_long(index: LexicalIndex) -> None:
    assert found(index, "lamp " * 1000 + " ".join(f"w{n}" for n in range(1000)))
    assert found(index, "x" * 100_000) == []


@settings(max_examples=60)
@given(filters(), st.sampled_from(["lamp", "酸奶 desk", "running shoes mug 无糖"]))
def test_filters_mean_what_they_mean_elsewhere(
    shop: ProductTable, index: LexicalIndex, wanted: Filters, query: str
) -> None:
    keys, scores = index.search(query, k=len(shop), filters=Filters())
    allowed = [wanted.matches(product) for product in shop.products(shop.rows_of_keys(keys))]
    for k in (len(shop), 5):
        found_keys, found_scores = index.search(query, k=k, filters=wanted)
        assert found_keys.tolist() == keys[allowed][:k].tolist()
        assert found_scores == pytest.approx(scores[allowed][:k])


@pytest.mark.parametrize("query", ["lamp", "酸奶", "desk mug", "running shoes 希腊 无糖"])
def test_scores_fall_and_ties_go_by_key_wherever_the_cut_is(
    shop: ProductTable, index: LexicalIndex, query: str
) -> None:
    keys, scores = index.search(query, k=len(shop), filters=Filters())
    assert len(keys) > 50
    assert len(set(scores.tolist())) < len(scores)
    order = np.lexsort((keys, -scores))
    assert keys.tolist() == keys[order].tolist()
    for k in (1, 2, 7, 50):
        assert found(index, query, k=k) == keys[:k].tolist()


def test_products_come_change_and_go_with_a_commit(folder: Path) -> None:
    index, table = build(
        folder, *(Product(product_id=name, title=f"Lamp {name}") for name in ("a", "b", "c"))
    )
    table = table.upsert(
        [Product(product_id="b", title="酸奶 lamp"), Product(product_id="d", title="Lamp")]
    )[0]
    index.remove([0, 1, 99])
    index.add(table, table.rows_of_ids(["b", "d"]))
    assert sorted(found(index, "lamp")) == [0, 1, 2]
    assert len(index) == 3
    index.commit()
    assert sorted(found(index, "lamp")) == [1, 2, 3]
    assert found(index, "酸奶") == [1]
    assert (len(index), index.deleted()) == (3, 2)
    with LexicalIndex.open(folder) as opened:
        assert sorted(found(opened, "lamp")) == [1, 2, 3]
        assert found(opened, "酸奶") == [1]


def test_what_was_not_committed_is_dropped(folder: Path) -> None:
    index, table = build(folder, Product(product_id="a", title="Lamp"))
    index.add(table, [0])
    index.remove([0])
    index.close()
    with LexicalIndex.open(folder) as opened:
        assert found(opened, "lamp") == [0]
        assert len(opened) == 1


def test_a_second_writer_is_told_about_the_first(folder: Path) -> None:
    index, table = build(folder, Product(product_id="a", title="Lamp"))
    with LexicalIndex.open(folder) as other:
        index.add(table, [0])
        with pytest.raises(DataError, match="another `shelfwise index build`"):
            other.remove([0])
        index.commit()
        other.remove([0])
        other.commit()
        assert len(other) == 0


def test_progress_is_told(folder: Path, shop: ProductTable) -> None:
    told: list[tuple[int, int]] = []
    with LexicalIndex.create(folder) as index:
        index.add(shop, [1, 2, 3], progress=lambda *numbers: told.append(numbers))
    assert told == [(3, 3)]


def test_a_missing_index_names_the_remedy(folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match=r"lexical: there is no word index; run `shelfwise ind"):
            LexicalIndex.open(folder)
        folder.mkdir(exist_ok=True)


def test_an_index_is_not_made_over_another(folder: Path) -> None:
    build(folder, Product(product_id="a", title="Lamp"))
    with pytest.raises(DataError, match="there is a word index already"):
        LexicalIndex.create(folder)


@pytest.mark.parametrize("damage", ["cut", "remove", "nonsense"])
@pytest.mark.parametrize("pattern", ["meta.json", "*.idx", "*.term", "*.fast", "*.fieldnorm"])
def test_a_damaged_index_is_an_error_with_a_remedy(folder: Path, pattern: str, damage: str) -> None:
    build(folder, Product(product_id="a", title="Lamp"))
    for file in folder.glob(pattern):
        if damage == "remove":
            file.unlink()
        elif damage == "cut":
            file.write_bytes(file.read_bytes()[:-30])
        else:
            file.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="run `shelfwise index build`"):
        LexicalIndex.open(folder).search("lamp", k=3, filters=Filters())


def test_threads_read_together(index: LexicalIndex, shop: ProductTable) -> None:
    wanted = Filters(in_stock=True)
    expected = found(index, "lamp 酸奶", k=20, wanted=wanted)
    answers: list[list[int]] = []

    def read() -> None:
        answers.extend(found(index, "lamp 酸奶", k=20, wanted=wanted) for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 80
