"""How hostile text is made fit to be said in a summary."""

import re

from reranker.schema import one_line

_MOST_WORDS = 12
_MOST_CHARACTERS = 64
_LOOSE_END = " .。,，:：-–&(（"
_SHORTEST_SECRET = 5
_NEUTRAL = str.maketrans({";": ",", "；": "，"})


def clean_text(text: str) -> str:
    """Return hostile text on one line, without control characters, at most a dozen words."""
    words = one_line(text).translate(_NEUTRAL).split()[:_MOST_WORDS]
    while len(words) > 1 and len(" ".join(words)) > _MOST_CHARACTERS:
        words.pop()
    return " ".join(words)[:_MOST_CHARACTERS].rstrip(_LOOSE_END)


class Secret:
    """A user id that no text may hold as a word of its own, unless it is too short to tell."""

    def __init__(self, user_id: str) -> None:
        self._folded = user_id.casefold()

    def is_in(self, text: str) -> bool:
        """Tell whether a text gives the shopper away."""
        folded = text.casefold()
        # The plain search settles almost every text.
        if len(self._folded) < _SHORTEST_SECRET or self._folded not in folded:
            return False
        return re.search(rf"(?<!\w){re.escape(self._folded)}(?!\w)", folded) is not None
