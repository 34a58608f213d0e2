"""What is left of the names of files once a shopper is forgotten."""

from pathlib import Path

from retrieval.behaviour import FILE_NAME, BehaviourStore
from retrieval.privacy.erasure import forget


def test_a_folder_of_the_name_makes_no_row_the_shopper_s(tmp_path: Path) -> None:
    (tmp_path / "seller").mkdir()
    rows = "user_id,kind,at,product_id\n" + "".join(f"u{n},click,never,p\n" for n in range(9))
    files = [tmp_path / "seller" / name for name in ("all.csv", "of seller.csv")]
    for file in files:
        file.write_text(rows)
    with BehaviourStore(tmp_path / "store") as opened:
        opened.import_events(files)
        assert forget(opened, tmp_path / "store", "seller").quarantined == 9
        assert {row.file for row in opened.rejected()} == {"all.csv"}
    assert b"/seller/" not in (tmp_path / "store" / FILE_NAME).read_bytes()


def test_other_folders_stay_in_the_names_of_files(tmp_path: Path) -> None:
    (tmp_path / "sellers").mkdir()
    file = tmp_path / "sellers" / "all.csv"
    file.write_text("user_id,kind,at,product_id\nu1,click,never,p\n")
    with BehaviourStore(tmp_path / "store") as opened:
        opened.import_events([file])
        forget(opened, tmp_path / "store", "ellers")
        assert [row.file for row in opened.rejected()] == [str(file)]
