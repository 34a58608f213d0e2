import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.errors import DataError
from reranker.schema import Filters, Product
from retrieval.files import replacing
from retrieval.product_columns import ENCODED_SCHEMA, product_text
from retrieval.product_table import ProductTable

NAMES = st.sampled_from(
    [
        "",
        "Tarn",
        "TARN",
        "straße",
        "STRASSE",
        "ＴＡＲＮ",
        "希腊",
        "a > b",
        "a",
        "Caf\u00e9",
        "CAFE\u0301",
    ]
)
CATEGORIES = st.lists(NAMES, min_size=1, max_size=3).map(" > ".join)
PRICES = st.sampled_from([0.0, 1.0, 9.99, 10.0, 1e9])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PRODUCTS = st.builds(
    Product,
    product_id=st.uuids().map(str),
    title=st.sampled_from(["Desk lamp", "无糖酸奶", "x"]),
    description=TEXTS,
    brand=st.none() | NAMES,
    category=st.none() | CATEGORIES,
    price=st.none() | PRICES,
    currency=st.none() | st.just("CNY"),
    in_stock=st.booleans(),
    attributes=st.dictionaries(TEXTS, TEXTS, max_size=2),
)
CATALOGUES = st.lists(PRODUCTS, max_size=8, unique_by=lambda product: product.product_id)


@st.composite
def filters(draw: st.DrawFn) -> Filters:
    bounds = sorted(draw(st.lists(PRICES, min_size=2, max_size=2)))
    return Filters(
        categories=draw(st.lists(CATEGORIES, max_size=2).map(tuple)),
        brands=draw(st.lists(NAMES, max_size=2).map(tuple)),
        min_price=draw(st.none() | st.just(bounds[0])),
        max_price=draw(st.none() | st.just(bounds[1])),
        in_stock=draw(st.none() | st.booleans()),
    )


def table_of(*products: Product) -> ProductTable:
    return ProductTable.empty().upsert(products)[0]


def lamp(product_id: str, **fields: object) -> Product:
    return Product.model_validate({"product_id": product_id, "title": "Desk lamp", **fields})


def test_every_field_of_a_product_is_stored() -> None:
    assert set(Product.model_fields) <= set(ENCODED_SCHEMA.names)


@given(CATALOGUES)
def test_products_and_texts_come_back_as_they_went_in(products: list[Product]) -> None:
    table = table_of(*products)
    rows = range(len(products))
    assert table.products(rows) == tuple(products)
    assert table.product_ids(rows) == [product.product_id for product in products]
    assert table.texts(rows) == [product_text(product) for product in products]


@given(CATALOGUES, filters())
def test_the_mask_is_what_filters_match(products: list[Product], wanted: Filters) -> None:
    mask = table_of(*products).mask(wanted)
    assert mask.tolist() == [wanted.matches(product) for product in products]


def test_a_mask_cannot_be_spoilt_for_the_next_caller() -> None:
    table = table_of(lamp("a"))
    with pytest.raises(ValueError, match="read-only"):
        table.mask(Filters())[0] = False


def test_the_text_has_the_parts_that_matter_and_cuts_the_description() -> None:
    product = Product(
        product_id="p",
        title="希腊酸奶",
        brand="Tarn",
        category="食品 > 乳品",
        attributes={"size": "500 g", "sugar": "无糖"},
        description="x" * 900,
    )
    assert product_text(product) == "希腊酸奶\nTarn\n食品, 乳品\n500 g, 无糖\n" + "x" * 500


def test_a_saved_table_opens_as_it_was(tmp_path: Path) -> None:
    table = table_of(lamp("a", price=3.5), lamp("b", brand="Tarn"))
    table.save(tmp_path / "sub" / "t.arrow")
    opened = ProductTable.open(tmp_path / "sub" / "t.arrow")
    assert opened.products([1, 0]) == table.products([1, 0])
    assert opened.fingerprint == table.fingerprint
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["t.arrow"]


def test_an_empty_table_answers_everything(tmp_path: Path) -> None:
    ProductTable.empty().save(tmp_path / "t.arrow")
    table = ProductTable.open(tmp_path / "t.arrow")
    assert len(table) == 0
    assert table.products([]) == ()
    assert table.rows_of_ids(["a"]).tolist() == [-1]
    assert table.rows_of_keys([0]).tolist() == [-1]
    assert table.mask(Filters(brands=("x",))).tolist() == []
    assert table.delete(["a"])[1] == 0


def test_rows_are_found_by_id_and_key() -> None:
    table, deleted = table_of(lamp("a"), lamp("b"), lamp("酸奶")).delete(["b"])
    assert deleted == 1
    assert table.rows_of_ids(["酸奶", "b", "a", "酸奶"]).tolist() == [1, -1, 0, 1]
    assert table.keys.tolist() == [0, 2]
    assert table.rows_of_keys(np.array([2, 1, 0, 7])).tolist() == [1, -1, 0, -1]


def test_ids_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def collide(texts: list[str]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return np.array([7 for _ in texts], np.uint64)

    monkeypatch.setattr("retrieval.product_columns.hashes_of", collide)
    table = table_of(lamp("a"), lamp("b"), lamp("c"))
    assert table.rows_of_ids(["c", "x", "a", "b"]).tolist() == [2, -1, 0, 1]


def test_upsert_counts_keeps_keys_and_leaves_the_old_table_alone() -> None:
    old = table_of(lamp("a"), lamp("b"), lamp("c"))
    new, added, changed, unchanged = old.upsert(
        [lamp("d"), lamp("b", price=2.0), lamp("a"), lamp("e")]
    )
    assert (added, changed, unchanged) == (2, 1, 1)
    assert new.product_ids(range(5)) == ["a", "b", "c", "d", "e"]
    assert new.keys.tolist() == [0, 1, 2, 3, 4]
    assert [product.price for product in new.products(range(5))] == [None, 2.0, None, None, None]
    assert len(old) == 3
    assert old.products([1])[0].price is None


def test_hashes_tell_what_changed() -> None:
    old = table_of(lamp("a"), lamp("b"), lamp("c"))
    new = old.upsert([lamp("a", price=2.0), lamp("b", brand="Tarn")])[0]
    assert (old.row_hashes == new.row_hashes).tolist() == [False, False, True]
    assert (old.text_hashes == new.text_hashes).tolist() == [True, False, True]
    assert old.fingerprint != new.fingerprint
    back = new.upsert([lamp("a"), lamp("b")])[0]
    assert back.fingerprint == old.fingerprint


def test_hashes_stay_the_same_from_version_to_version() -> None:
    table = table_of(lamp("a", price=2.5, brand="塔恩", attributes={"colour": "黑"}))
    assert table.row_hashes.tolist() == [527815331089868651]
    assert table.text_hashes.tolist() == [117063760481686373]


def test_a_key_is_never_given_again(tmp_path: Path) -> None:
    table = table_of(lamp("a"), lamp("b")).delete(["b", "unknown"])[0]
    table.save(tmp_path / "t.arrow")
    table = ProductTable.open(tmp_path / "t.arrow").upsert([lamp("b")])[0]
    assert table.keys.tolist() == [0, 2]


def test_an_upsert_that_changes_nothing_gives_the_same_table() -> None:
    table = table_of(lamp("a"))
    assert table.upsert([lamp("a")]) == (table, 0, 0, 1)


def test_the_same_id_twice_is_refused() -> None:
    with pytest.raises(DataError, match="'a' comes twice"):
        table_of(lamp("a"), lamp("a", price=1.0))


def test_a_missing_or_damaged_file_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    with pytest.raises(DataError, match=r"t\.arrow: there is no catalogue; run `shelfwise catalo"):
        ProductTable.open(path)
    table_of(lamp("a")).save(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no arrow file at all" * 100):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"corrupt .*shelfwise catalogue import"):
            ProductTable.open(path)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    products = (
        lamp(f"p{n}", description="d" * n, brand="Tarn" if n % 2 else None, price=n or None)
        for n in range(20)
    )
    table = table_of(*products).delete(["p3"])[0].upsert([lamp("new")])[0]
    table.verify()
    table.save(path)
    whole = path.read_bytes()
    opened = ProductTable.open(path)
    opened.verify()
    opened.save(path)
    assert path.read_bytes() == whole
    content = table.column("description").buffers()[2].to_pybytes()[:100]
    prices = table.column("price").buffers()[1].to_pybytes()[:100]
    for part in (content, prices, b"new", b"Tarn", np.arange(3).tobytes()):
        damaged = bytearray(whole)
        damaged[whole.rindex(part) + 2] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"t\.arrow: the catalogue is corrupt .*delete it and"):
            ProductTable.open(path).verify()


def test_a_table_without_a_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("retrieval.product_table.checksum", lambda *_: "")
        table_of(lamp("a")).save(tmp_path / "t.arrow")
    with pytest.raises(DataError, match="not a catalogue of this version"):
        ProductTable.open(tmp_path / "t.arrow")


def test_a_column_has_all_rows() -> None:
    assert table_of(lamp("a", price=2), lamp("b")).column("price").to_pylist() == [2.0, None]


def test_a_table_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("retrieval.product_table._FORMAT", {b"format": b"shelfwise-products/0"})
        table_of(lamp("a")).save(tmp_path / "t.arrow")
    with pytest.raises(DataError, match="not a catalogue of this version"):
        ProductTable.open(tmp_path / "t.arrow")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps("new"))
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_open_table_outlives_its_replacement(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    table_of(lamp("a")).save(path)
    opened = ProductTable.open(path)
    table_of(*(lamp(f"n{number}") for number in range(50))).save(path)
    assert opened.product_ids([0]) == ["a"]
    assert len(ProductTable.open(path)) == 50
