"""User ids in texts: what a shopper is known by has no place in what is kept or said of them."""

import re
import unicodedata

SHORTEST = 5
"""In characters. Shorter user ids are too common as words to tell of anybody."""
# Chinese is written without spaces: letters of other scripts do not go on with a word.
_WORD = r"(?<![\dA-Za-z]){}(?![\dA-Za-z])"
COMPATIBLE = (
    "[ªº²³¹¼-¾ßẞİĲ-ĳĿ-ŀŉſǄ-ǌǱ-ǳʰ-ʸˡ-ˣᴬ-ᶻẚ⁰-ₜ₨℀-↉①-⓪"
    "ⱼ-ⱽ㉐-㉟㊱-㋏㍘-㏿ꟲ-ꟴﬀ-ﬆ０-９＠-Ｚ＿ａ-ｚ－．𐞥𝐀-𝟿🄀-🆐🯰-🯹]"
)
"""Regular expression (RE2) of characters that may stand for letters and digits of ASCII."""


class Secret:
    """A user id that no text may hold as a word of its own, unless it is too short to tell.

    Widths and other forms of its characters (NFKC), and their case, make no difference.
    """

    def __init__(self, user_id: str) -> None:
        self._plain = unicodedata.normalize("NFKC", user_id).strip()
        self._folded = _folded(self._plain)

    def occurs_in(self, text: str) -> bool:
        """Tell whether a text has the id at all, be it as a part of words: the quicker question."""
        return len(self._plain) >= SHORTEST and self._folded in _folded(text)

    def is_in(self, text: str) -> bool:
        """Tell whether a text gives the shopper away."""
        if not self.occurs_in(text):  # as almost always
            return False
        return re.search(_WORD.format(re.escape(self._folded)), _folded(text)) is not None

    def replaced(self, text: str, word: str) -> str:
        """Return a text with another word in place of the user id; unchanged if it has none."""
        if not self.is_in(text):
            return text
        pattern = f"(?i){_WORD.format(re.escape(self._plain))}"
        left = re.sub(pattern, word, unicodedata.normalize("NFKC", text))
        if not self.is_in(left):
            return left
        # Some letters become several as they are folded: ß.
        return re.sub(_WORD.format(re.escape(self._folded)), word, _folded(left))


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
