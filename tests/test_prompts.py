import hashlib
from importlib import resources

import pytest

from prompts import TemplateError, load_template

CARDS = [
    {"label": "A", "slot": "<slot>", "text": "Smartphone | 649.00 EUR"},
    {"label": "B", "slot": "<slot>", "text": "手机 | 1999.00 CNY"},
]


PINNED = {
    "card_evidence.v2.en.jinja": (
        "addf2094cad2377de8f27d41d13e5d279402f55b70eff1b493767cfe4ce54a3e"
    ),
    "card_evidence.v2.zh.jinja": (
        "89fb379bee98e817dd28f2a5f13ee86824190c0a51403380e6b665984d43e041"
    ),
    "listwise_generate.v2.en.jinja": (
        "444912a6c9620272b4345c2d7d7110abc6ae9ce3a42c64ca374b71555f87ad4a"
    ),
    "listwise_generate.v2.zh.jinja": (
        "7bda9bbfbf3b456fc42b50c8d892029a3672b88c8c8cb26e432fc917c34d7a4c"
    ),
    "listwise_labels.v2.en.jinja": (
        "4c24317c1911337f2f7b4b0e311e8016cdb0720540e35e36ada6254937fa60f2"
    ),
    "listwise_labels.v2.zh.jinja": (
        "48211802af7ec8bd4c5ee8be8ed072f849dace47d948d3ea85b3bf65dcf77dc4"
    ),
    "listwise_verdict.v2.en.jinja": (
        "fa262abd17512f75bd1d4bcc1a35a5aaad34f1072d051fe0712e1a9b91fc5185"
    ),
    "listwise_verdict.v2.zh.jinja": (
        "8696b62d1fd3e9209b1fc8f512cd6f32970bbc3dbc179c361f5a2cd3d93fa3aa"
    ),
}


@pytest.mark.parametrize("file", PINNED)
def test_a_template_never_changes_once_it_is_used(file: str) -> None:
    """A change of wording is a new file with the next version."""
    content = (resources.files("prompts") / "templates" / file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == PINNED[file]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("readout", ["labels", "verdict", "generate"])
def test_listwise_rendering(readout: str, language: str, golden) -> None:
    template = load_template(f"listwise_{readout}", language)
    own = {"labels": {"answer_prefix": "["}, "generate": {"reasons": 2}}
    variables = own.get(readout, {})
    messages = template.render_messages(
        profile="Buys often: green tea.",
        query="手机" if language == "zh" else "phone",
        context=(("occasion", "gift"),),
        cards=CARDS,
        **variables,
    )
    text = "\n".join(f"--- {role}\n{content}" for role, content in messages) + "\n"
    places = [text.index(card["text"]) for card in CARDS]
    assert places == sorted(places)
    golden(f"listwise_{readout}.v{template.version}.{language}.txt", text)


EVIDENCE = {
    "en": "sales 7 | bought 3 times | put in the cart",
    "zh": "销量 7 | 买过 3 次 | 加入过购物车",
}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_the_shop_knows_of_a_product(language: str) -> None:
    template = load_template("card_evidence", language)
    assert template.render(sales=7, bought=3, touched="cart") == EVIDENCE[language]
    assert template.render(sales=None, bought=0, touched=None) == ""


@pytest.mark.parametrize("deed", ["view", "click", "favourite", "cart", "return"])
def test_every_deed_has_words(deed: str) -> None:
    said = {
        load_template("card_evidence", one).render(sales=None, bought=0, touched=deed)
        for one in ("en", "zh")
    }
    assert len(said) == 2
    assert "" not in said


def test_without_profile_or_query_nothing_is_said_of_them() -> None:
    messages = dict(
        load_template("listwise_labels", "en").render_messages(
            profile="", query=None, context=(), cards=CARDS, answer_prefix=""
        )
    )
    assert "known of the shopper" not in messages["user"]
    assert "searches for" not in messages["user"]
    assert "recommend" in messages["user"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_without_reasons_none_are_asked_for(language: str) -> None:
    template = load_template("listwise_generate", language)
    messages = dict(
        template.render_messages(profile="", query="tea", context=(), cards=CARDS, reasons=0)
    )
    assert "reason" not in messages["user"]
    assert "理由" not in messages["user"]
    assert messages["user"].endswith('{"ranking": ["8", "9", "7"]}')
    assert "assistant" not in messages


def test_missing_and_unknown_variables_are_named() -> None:
    template = load_template("listwise_labels", "en")
    with pytest.raises(
        TemplateError, match="missing variables answer_prefix, cards, context, query"
    ):
        template.render(profile="")
    with pytest.raises(TemplateError, match="unknown colour"):
        template.render(profile="", query="", context=(), cards=[], answer_prefix="", colour="red")


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(TemplateError, match="no template listwise_labels version 99"):
        load_template("listwise_labels", "en", 99)
    with pytest.raises(TemplateError, match="in fr"):
        load_template("listwise_labels", "fr")
