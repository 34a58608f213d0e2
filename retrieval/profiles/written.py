"""Summaries that a language model wrote: kept on disk, and said only as far as they still hold.

Nothing is written while somebody waits for a search. What was written is held to the facts of the
moment each time it is read: a sentence is said only while every fact that it rests on is still
among them, word for word. So a summary that lags behind loses sentences, never says what has
changed, and gives way to the template's text when none is left.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from reranker.schema import Language, UserProfile, Value
from retrieval.files import replacing
from retrieval.profiles.evidence import DropCause, Statement
from retrieval.profiles.facts import Fact, findings_of, telling_facts
from retrieval.profiles.in_words import in_words
from retrieval.profiles.summary import Summariser

FOLDER = Path("profiles") / "written"
"""In a store's folder. A file's name begins with the pseudonym's 32 hexadecimal digits, by which
the erasure of a shopper finds it. (An evaluation keeps such files, too, by its cases.)"""
_MOST_STATEMENTS = 26


class WrittenSentence(Value):
    """A sentence, with the texts of the facts that it rests on."""

    text: str
    facts: tuple[str, ...] = Field(min_length=1)


class WrittenSummary(Value):
    """What a model wrote on one shopper, in one language.

    Attributes:
        key: hash of facts, template and model: written again only when it changes.
        model: name of the model.
        dropped: number of sentences that the facts did not bear out, by cause.
    """

    key: str
    model: str
    language: Language
    sentences: tuple[WrittenSentence, ...]
    dropped: Mapping[DropCause, int] = Field(default_factory=dict)


class WrittenSummaries:
    """The summaries below a store's folder. Thread-safe for reading."""

    def __init__(self, store: Path, summariser: Summariser) -> None:
        self._folder = store / FOLDER
        self._summariser = summariser

    def read(self, shopper: str, language: Language) -> WrittenSummary | None:
        """Return what was written on a shopper (a pseudonym's digits); None without, or damaged."""
        try:
            return WrittenSummary.model_validate_json(self._file(shopper, language).read_bytes())
        except (OSError, ValidationError):
            return None

    def save(self, shopper: str, summary: WrittenSummary) -> None:
        """Keep a summary in place of an earlier one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._file(shopper, summary.language), private=True) as temporary:
            temporary.write_text(summary.model_dump_json(), encoding="utf-8")

    def tell(self, profile: UserProfile, shopper: str) -> UserProfile:
        """Return a profile with the text that was written on its shopper, as far as it holds."""
        written = self.read(shopper, profile.language)
        if written is None:
            return profile
        facts = telling_facts(findings_of(profile), profile.language, profile.user_id)
        true = {each.text for each in statements(profile)}
        holding = [each.text for each in written.sentences if true.issuperset(each.facts)]
        visit = [fact for fact in facts if fact.of_visit]
        summary = self._compose(holding, visit, profile.language)
        if summary is None:
            return profile
        return profile.model_copy(update={"summary": summary, "summary_origin": "llm"})

    def _compose(self, sentences: list[str], visit: list[Fact], language: Language) -> str | None:
        """Return the first sentences that fit, and the visit on lines of its own."""
        most = self._summariser.max_tokens
        now = self._summariser.fit(visit, language, most // 2)
        joint = "" if language == "zh" else " "
        while sentences:
            text = "\n".join(part for part in (joint.join(sentences), now) if part)
            if self._summariser.count(text) <= most:
                return text
            sentences = sentences[:-1]
        return None

    def _file(self, shopper: str, language: Language) -> Path:
        return self._folder / f"{shopper}.{language}.json"


def statements(profile: UserProfile) -> list[Statement]:
    """Return what a model may say of a profile: its facts one by one, the most telling first.

    Rhythms are told, counts and ages are not: they change from day to day, and with them would
    every sentence. The present visit is left to the template.
    """
    facts = telling_facts(findings_of(profile), profile.language, profile.user_id)
    found = []
    for fact in facts:
        for entry in () if fact.of_visit else fact.entries:
            lasting = Fact(fact.about, (entry.lasting(),))
            text = in_words([lasting], profile.language)
            found.append(Statement(fact.about, entry.text, text))
    return found[:_MOST_STATEMENTS]
