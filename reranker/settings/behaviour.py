"""Settings of what is taken in of shoppers, kept, told and graded."""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from reranker.settings.section import Section, pairs, split_text

Purpose = Literal["personalisation", "training", "analytics"]
"""What a shopper's behaviour may be used for; consent is given for each."""


class CleaningSettings(Section):
    """What an import of events repairs and refuses."""

    earliest: date = Field(
        date(1995, 1, 1), description="events before this day are refused: a clock was wrong"
    )
    clock_tolerance_hours: Annotated[float, Field(ge=0)] = Field(
        24.0, description="hours that an event may lie after the moment of the import"
    )
    repair_clock: bool = Field(
        True, description="repair times in which milliseconds and seconds were taken for each other"
    )
    bot_events_per_minute: Annotated[int, Field(ge=0)] = Field(
        60,
        description="searches, views and clicks in one minute above which a shopper without any "
        "dwell time is a bot; 0: no shopper is",
    )
    orphans: Literal["keep", "reject"] = Field(
        "keep",
        description="events of products that the catalogue does not have: counted, or refused",
    )
    product_date: str = Field(
        "",
        description="attribute of the catalogue with the ISO day since when a product exists; "
        "earlier events of it are refused. Empty: not checked",
    )
    ordinals_from: Literal[0, 1] = Field(
        1, description="number that position.ordinal of UBI events starts from"
    )
    columns: Annotated[tuple[str, ...], NoDecode, pairs("FIELD=COLUMN", "user_id=customer")] = (
        Field(
            (),
            description="columns of event files, or paths in their documents, where they do not "
            "have the field's name: a table of field to column, or FIELD=COLUMN with commas "
            "between; what --map says goes before it",
        )
    )
    kinds: Annotated[tuple[str, ...], NoDecode, pairs("ACTION=KIND", "hover=view")] = Field(
        (),
        description="what actions of event logs are, besides those known: a table of action to "
        "kind, or ACTION=KIND with commas between; 'ignore' leaves an action out",
    )


class PrivacySettings(Section):
    """How shoppers are protected in the behaviour store."""

    key: SecretStr | None = Field(
        None,
        description="secret behind the pseudonyms of shoppers, at least 16 characters; after a "
        "rotation all of them, oldest first, with commas between, so that none may hold a comma. "
        "None: privacy.key_file",
    )
    key_file: Path | None = Field(
        None,
        description="file of these secrets, made at first use; none: pseudonym.key in the user's "
        "configuration folder",
    )
    default_consent: Annotated[tuple[Purpose, ...], NoDecode, BeforeValidator(split_text)] = Field(
        ("personalisation", "training", "analytics"),
        description="purposes that a shopper without a record consents to, with commas between; "
        "empty: none",
    )
    retain_days: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="age in days from which events are left out by imports and deleted by "
        "'shelfwise privacy retain'; none: kept for ever",
    )
    phone_regions: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_text)] = Field(
        ("US", "GB", "DE", "CN"),
        description="countries (ISO 3166 codes) whose phone numbers are found in queries also "
        "without their country code",
    )
    epsilon_budget: Annotated[float, Field(gt=0)] = Field(
        1.0, description="differential privacy that all tables published of a store may cost"
    )


class ProfileSettings(Section):
    """What is distilled from a shopper's behaviour."""

    half_life_days: Annotated[float, Field(gt=0)] = Field(
        60.0, description="days after which an event counts half"
    )
    max_events: Annotated[int, Field(ge=1)] = Field(
        2000, description="newest events that a profile looks at"
    )
    min_evidence: Annotated[int, Field(ge=1)] = Field(
        2, description="events that an affinity needs"
    )
    recent_items: Annotated[int, Field(ge=0)] = Field(
        10, description="latest products kept: of those bought, and of the others"
    )
    session_minutes: Annotated[float, Field(gt=0)] = Field(
        30.0, description="minutes without an event that end a visit"
    )
    max_tokens: Annotated[int, Field(ge=16)] = Field(
        192, description="length of the profile text in the model's tokens"
    )
    summary: Literal["template", "llm"] = Field(
        "template",
        description="what the model reads: the facts in the template's words, or what a model has "
        "written on them ('shelfwise profile --write'), as far as it still holds",
    )


class LabelSettings(Section):
    """How behaviour becomes graded lists."""

    session_minutes: Annotated[float, Field(gt=0)] = Field(
        30.0, description="minutes without an event that end a session"
    )
    longest_dwell_s: Annotated[float, Field(gt=0)] = Field(
        600.0, description="seconds that a page counts as looked at, at most"
    )
    long_dwell_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="seconds on a page from which a view without a click counts like one"
    )
    query_window_hours: Annotated[float, Field(gt=0)] = Field(
        24.0,
        description="hours from a list to what the same shopper does by the same query, if no "
        "request id tells",
    )
    product_window_hours: Annotated[float, Field(gt=0)] = Field(
        168.0,
        description="hours from a list to what the same shopper does to a product on it, if "
        "neither request id nor query tells",
    )
    settle_hours: Annotated[float, Field(ge=0)] = Field(
        24.0,
        description="lists shown this many hours before the cut or later are left out: what comes "
        "of them is not known yet",
    )
