"""Takes out of queries what identifies a person: addresses, phone, card and identity numbers.

Phone numbers are found by libphonenumber's rules (`phonenumbers`), the others by their form and
check digits, so that sizes, product codes and ISBNs stay. What is found is replaced by a word that
says what it was, since a search needs a query. Names and postal addresses are not found.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING

from reranker.errors import ConfigError
from reranker.schema import LONGEST_QUERY
from retrieval.user_ids import Secret

if TYPE_CHECKING:
    from phonenumbers import PhoneNumberMatch

SUSPECT = r"[@＠]|\p{Nd}(?:\P{Nd}{0,4}\p{Nd}){6}"
"""Regular expression (RE2) of the few texts that are worth a closer look."""
# The part before the @ has at most 64 characters (RFC 5321, 4.5.3.1.1). Without that bound, a long
# text without any would take time by the square of its length.
_E_MAIL = re.compile(r"[\w.+%'-]{1,64}@[\w-]+(?:\.[\w-]+)+")
_IDENTITY = re.compile(r"(?<![\dA-Za-z])\d{17}[\dXx](?![\dA-Za-z])")
_IDENTITY_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CARD = re.compile(r"(?<![\dA-Za-z])\d(?:[ -]?\d){13,18}(?![\dA-Za-z])")
_ISSUERS = re.compile(
    r"""4(\d{15}|\d{18})               # Visa
    | 5[1-5]\d{14}                     # Mastercard
    | 2(22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}
    | 3[47]\d{13}                      # American Express
    | 3(0[0-5]|[689]\d)\d{11}          # Diners Club
    | 35(2[89]|[3-8]\d)\d{12}          # JCB
    | 6(011|4[4-9]\d|5\d\d)\d{12,15}   # Discover
    | 62\d{14,17}                      # UnionPay
    | (50|5[6-9]|6[37])\d{14,17}       # Maestro""",
    re.VERBOSE,
)
_FEWEST_PHONE_DIGITS = 8
_LONGEST_FOUND = 320
"""In characters: an address of e-mail (RFC 3696, erratum 1690); all else is shorter."""
_MOST_SCRUBBED = 2 * LONGEST_QUERY + _LONGEST_FOUND


class Scrubber:
    """Replaces what identifies a person. The same text always gives the same result."""

    def __init__(self, regions: Sequence[str]) -> None:
        """Take the countries whose phone numbers are known without their country code.

        Raises:
            ConfigError: one is no ISO 3166 code that libphonenumber knows.
        """
        from phonenumbers import SUPPORTED_REGIONS

        unknown = ", ".join(sorted(set(regions) - set(SUPPORTED_REGIONS)))
        if unknown:
            raise ConfigError(f"setting privacy.phone_regions: unknown {unknown}; write US,GB,DE")
        self._regions = tuple(regions)

    def clean(self, text: str, user_id: str = "") -> str:
        """Return the text, unchanged if nothing was found, at most `LONGEST_QUERY` characters.

        Args:
            text: of any length; far beyond the longest query nothing is looked at.
            user_id: of its shopper, which goes, too, where it is a word of its own.
        """
        given = text[:_MOST_SCRUBBED]
        plain = unicodedata.normalize("NFKC", given)
        found = _E_MAIL.sub("[e-mail]", plain)
        found = _replace(_IDENTITY, found, _is_identity, "[identity number]")
        found = _replace(_CARD, found, _is_card, "[card number]")
        for region in self._regions or ("ZZ",):
            found = self._without_phones(found, region)
        found = Secret(user_id).replaced(found, "[user id]")
        clean = given if found == plain else found
        if len(text) > len(given):
            clean = clean[:-_LONGEST_FOUND]  # where half of something may be left
        return clean[:LONGEST_QUERY]

    def _without_phones(self, text: str, region: str) -> str:
        from phonenumbers import PhoneNumberMatcher

        parts, end = [], 0
        for match in PhoneNumberMatcher(text, region):
            if not _is_code(match):
                parts += [text[end : match.start], "[phone number]"]
                end = match.end
        return "".join([*parts, text[end:]])


def _replace(pattern: re.Pattern[str], text: str, test: Callable[[str], bool], word: str) -> str:
    return pattern.sub(lambda match: word if test(match[0]) else match[0], text)


def _is_identity(text: str) -> bool:
    """Tell a Chinese resident identity number (GB 11643-1999) by its date and check digit."""
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(text, _IDENTITY_WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == text[17].upper()


def _is_card(text: str) -> bool:
    """Tell a payment card by its issuer, length and check digit (ISO/IEC 7812-1, Luhn)."""
    digits = re.sub(r"\D", "", text)
    return _ISSUERS.fullmatch(digits) is not None and sum(_luhn(digits)) % 10 == 0


def _luhn(digits: str) -> Iterator[int]:
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        yield value - 9 if value > 9 else value


def _is_code(match: "PhoneNumberMatch") -> bool:
    """Tell a product's number, and digits too few for a phone, from a phone number.

    In doubt are only national numbers in one piece. GTIN-8, -12 and -13 (ISBN-13 among them) and
    ISBN-10 have a check digit; an ISBN-10 is believed only if it begins with 0 or 1, as no American
    number does. Of the others, landlines look like part numbers, and are taken for these.
    """
    from phonenumbers import PhoneNumberType, number_type

    text = match.raw_string
    digits = re.sub(r"\D", "", text)
    if len(digits) < _FEWEST_PHONE_DIGITS:
        return True
    if digits != text:
        return False
    if number_type(match.number) == PhoneNumberType.FIXED_LINE:
        return True
    if len(digits) == 10:
        sum_ = sum(int(digit) * (10 - place) for place, digit in enumerate(digits))
        return digits[0] in "01" and sum_ % 11 == 0
    weighted = (int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits[::-1]))
    return len(digits) in (8, 12, 13) and sum(weighted) % 10 == 0
