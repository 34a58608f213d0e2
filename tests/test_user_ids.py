"""What a text says of its shopper's id, whatever is written around it."""

import pytest

from retrieval.user_ids import Secret


@pytest.mark.parametrize(
    ("user_id", "text", "left"),
    [
        ("user4711", "我的user4711订单", "我的?订单"),
        ("user4711", "my ＵＳＥＲ４７１１ order", "my ? order"),
        ("ＵＳＥＲ４７１１", "my_user4711_order", "my_?_order"),
        ("straße-84", "to STRASSE-84", "to ?"),
        (" 张三李四王 ", "张三李四王的订单", "?的订单"),
        ("user4711", "user47112 xuser4711 user4711x", None),
        ("user4711", "４user4711", None),
        ("1234", "size 1234", None),
    ],
)
def test_an_id_is_found_as_a_word_of_its_own(user_id: str, text: str, left: str | None) -> None:
    secret = Secret(user_id)
    assert secret.is_in(text) == (left is not None)
    assert secret.replaced(text, "?") == (text if left is None else left)
