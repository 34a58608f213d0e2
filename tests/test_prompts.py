import pytest

from prompts import TemplateError, load_template

CARDS = [
    {"label": "A", "slot": "<slot>", "text": "Smartphone | 649.00 EUR"},
    {"label": "B", "slot": "<slot>", "text": "手机 | 1999.00 CNY"},
]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("readout", ["labels", "verdict"])
def test_listwise_rendering(readout: str, language: str, golden) -> None:
    template = load_template(f"listwise_{readout}", language)
    variables = {"answer_prefix": "["} if readout == "labels" else {}
    messages = template.render_messages(
        profile="Buys often: green tea.",
        query="手机" if language == "zh" else "phone",
        context=(("occasion", "gift"),),
        cards=CARDS,
        **variables,
    )
    text = "\n".join(f"--- {role}\n{content}" for role, content in messages) + "\n"
    golden(f"listwise_{readout}.v{template.version}.{language}.txt", text)


def test_without_profile_or_query_nothing_is_said_of_them() -> None:
    messages = dict(
        load_template("listwise_labels", "en").render_messages(
            profile="", query=None, context=(), cards=CARDS, answer_prefix=""
        )
    )
    assert "known of the shopper" not in messages["user"]
    assert "searches for" not in messages["user"]
    assert "recommend" in messages["user"]


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
