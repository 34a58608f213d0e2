import hashlib
from importlib import resources

import pytest

from prompts import TemplateError, load_template

CARDS = [
    {"label": "A", "slot": "<slot>", "text": "Smartphone | 649.00 EUR"},
    {"label": "B", "slot": "<slot>", "text": "手机 | 1999.00 CNY"},
]


PINNED = {
    "listwise_generate.v1.en.jinja": (
        "6134e1adc6dd936fcb33c67d643ecfb08275f02c8fccd7666895dd7dad1f2a98"
    ),
    "listwise_generate.v1.zh.jinja": (
        "efb1509ced0f9480dbb998b4cdba78d9c88879399792bcab086642ff5934c154"
    ),
    "listwise_labels.v1.en.jinja": (
        "5f34bf234fd78e0a7c60d6e73340ce570298c435a6ec3bc9de9360f0d7a3efff"
    ),
    "listwise_labels.v1.zh.jinja": (
        "912261a6d5df12f8d74770232d35f920f60bd0c2f358fca1eafd92f87a3850cd"
    ),
    "listwise_verdict.v1.en.jinja": (
        "60cad229f9001d6b40fc0a01d14e6b94560679f3ef90cecebf154f8576d5241b"
    ),
    "listwise_verdict.v1.zh.jinja": (
        "571b787229002ea2079eb45b907b9879380b2038d1fce0a393178aa8fdae0209"
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
