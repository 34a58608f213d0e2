"""Which purchases were sent back: one definition for labels, profiles and counts over everybody.

A return takes back its pieces (``quantity``; one, where nothing tells how many) from the latest
purchases of its product by its shopper that lie before it and have pieces left. A purchase was sent
back when none of its pieces is left. Returns of what was never bought take back nothing.

Labels count pieces. Profiles read no quantities, which would take a search more time: there, and in
what is counted over everybody to go with them, every purchase and every return is one piece.
"""

_TRACE = 1e-6
"""So little of a piece is nothing: weights in decimals do not add up exactly."""


def sent_back(events: str, order: str) -> str:
    """Return the relation of the purchases that were sent back.

    Of a shopper's product, let the balance be the pieces at hand: up with a purchase, down with a
    return, never below zero. The pieces of a purchase are those above the balance before it, and
    the latest go back first: it keeps one as long as the balance does not fall to that again.

    Args:
        events: a relation of purchases and returns, or of more, with ``shopper``, ``product_id``,
            ``kind`` and ``quantity``.
        order: its columns by which a shopper's events are ordered, the oldest first; of one moment
            purchases stand before returns.
    """
    over = f"PARTITION BY shopper, product_id ORDER BY {order} ROWS BETWEEN"
    until_now = f"({over} UNBOUNDED PRECEDING AND CURRENT ROW)"
    from_now = f"({over} CURRENT ROW AND UNBOUNDED FOLLOWING)"
    return f"""(WITH moved AS (
        SELECT *, coalesce(quantity, 1) * CASE kind WHEN 'return' THEN -1 ELSE 1 END AS change
        FROM (FROM {events} WHERE kind IN ('purchase', 'return'))
        SEMI JOIN (FROM {events} WHERE kind = 'return') USING (shopper, product_id)
    ), summed AS (
        SELECT *, sum(change) OVER {until_now} AS total FROM moved
    ), balanced AS (
        SELECT *, total - least(0, min(total) OVER {until_now}) AS balance FROM summed
    ), followed AS (
        SELECT *, min(balance) OVER {from_now} AS lowest FROM balanced
    )
    SELECT * EXCLUDE (change, total, balance, lowest) FROM followed
    WHERE kind = 'purchase' AND lowest <= balance - change + {_TRACE})"""
