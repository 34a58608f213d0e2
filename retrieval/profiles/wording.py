"""How hostile text is made fit to be said in a summary."""

from reranker.schema import one_line

_MOST_WORDS = 12
_MOST_CHARACTERS = 64
_LOOSE_END = " .。,，:：-–&(（"
_NEUTRAL = str.maketrans({";": ",", "；": "，"})


def clean_text(text: str) -> str:
    """Return hostile text on one line, without control characters, at most a dozen words."""
    words = one_line(text).translate(_NEUTRAL).split()[:_MOST_WORDS]
    while len(words) > 1 and len(" ".join(words)) > _MOST_CHARACTERS:
        words.pop()
    return " ".join(words)[:_MOST_CHARACTERS].rstrip(_LOOSE_END)
