"""The SQL that turns behaviour into graded lists, one temporary table after the other.

What happened at or after the cut is in none of them: all begin with `seen`, which reads the
behaviour through the door that the store gives (`BehaviourStore.past`).
"""

from reranker.schema import GRADES
from reranker.settings import LabelSettings
from retrieval.returns import sent_back

_MICROSECONDS = 1_000_000
DEEDS = (("click",), ("view",), ("favourite", "cart"), ("purchase",))
"""Kinds in the order of their attribution: later ones follow the touches of earlier ones."""


def seen(past: str, settings: LabelSettings) -> str:
    """Return the events before the cut with the session of each, and how long a page was open.

    A session ends where the shopper does nothing for a while, or the shop says that another one
    begins. Without a dwell time of its own, a page is left when the shopper's next event in the
    session comes; what is shown meanwhile is no event of the shopper's.

    Args:
        past: the relation of the events; takes the parameter ``as_of``.
        settings: of the gap and the longest dwell time.
    """
    gap = _interval(settings.session_minutes * 60)
    return f"""CREATE TEMP TABLE seen AS
    WITH marked AS (
        SELECT shopper, kind, "at", product_id, lower(trim(query)) AS query, query AS asked,
            request_id, session_id, "position", dwell_ms, quantity,
            "at" - lag("at") OVER known > {gap}
                OR coalesce(session_id <> lag(session_id) OVER known, false) AS begins
        FROM {past}
        WINDOW known AS (PARTITION BY shopper ORDER BY "at", session_id, kind, product_id)
    ), visits AS (
        SELECT *, sum(coalesce(begins, true)::INT) OVER (PARTITION BY shopper ORDER BY "at")::INT
            AS session
        FROM marked
    )
    SELECT * EXCLUDE (begins), min("at") FILTER (kind <> 'impression') OVER (
        PARTITION BY shopper, session ORDER BY "at"
        RANGE BETWEEN INTERVAL 1 MICROSECOND FOLLOWING AND UNBOUNDED FOLLOWING) AS left_at
    FROM visits"""


SHOWN = """CREATE TEMP TABLE shown AS
    WITH impression AS (
        SELECT *, CASE WHEN request_id NOTNULL AND min(session_id) OVER request
            < max(session_id) OVER request THEN session_id END AS visit
        FROM seen WHERE kind = 'impression'
        WINDOW request AS (PARTITION BY shopper, request_id)
    ), product AS (
        SELECT shopper, coalesce(request_id, concat('list-', shopper, '-', epoch_us("at"))) AS name,
            visit, product_id, min("at") AS "at", min("position") AS "position",
            min(query) AS query, min(asked) AS asked, min(session) AS session
        FROM impression GROUP BY ALL
    )
    SELECT *, dense_rank() OVER (ORDER BY shopper, name, visit) AS list FROM product"""
"""What was shown, once a list; impressions of one moment without a request id are one list.

Where a request id comes in several of the shopper's visits, as the shop's ``session_id`` tells
them, ids are counted anew in each, and ``visit`` tells their lists apart.
"""


def deeds(settings: LabelSettings) -> str:
    """Return what was done to products, returns too, with the time spent on their pages."""
    cap = int(settings.longest_dwell_s * 1000)
    return f"""CREATE TEMP TABLE deed AS
    SELECT row_number() OVER (ORDER BY shopper, "at", kind, product_id, request_id) AS id, shopper,
        kind, "at", product_id, request_id, session_id, quantity, query,
        CASE WHEN kind IN ('view', 'click')
            THEN coalesce(dwell_ms, epoch_ms(left_at) - epoch_ms("at")) END AS open_ms,
        CASE WHEN open_ms NOTNULL THEN least({cap}, open_ms) END AS dwell_ms,
        open_ms NOTNULL AND seen.dwell_ms NOTNULL AS told_dwell
    FROM seen WHERE kind IN ({_listed((*sum(DEEDS, ()), "return"))})"""


ATTRIBUTED = """CREATE TEMP TABLE attributed AS
    SELECT *, NULL::BIGINT AS list, NULL::VARCHAR AS attribution FROM deed LIMIT 0"""


def attribute(kinds: tuple[str, ...], settings: LabelSettings) -> str:
    """Put deeds of some kinds down to the one list each that led to them, or to none.

    That is the list with the deed's request id, in its visit where the id comes in several; else
    the latest before it with its query; else the one on which its product was touched last, by what
    has been attributed already; else the latest that showed its product. Each by the same shopper.
    """
    product = _interval(settings.product_window_hours * 3600)
    query = _interval(settings.query_window_hours * 3600)
    ways = {
        "request": "d.requested NOTNULL",
        "query": f'd."at" - query."at" <= {query}',
        "touch": f'd."at" - touch."at" <= {product}',
        "product": f'd."at" - product."at" <= {product}',
    }
    found = {way: f"{way}.list" for way in ways} | {"request": "d.requested"}
    lists = " ".join(f"WHEN {holds} THEN {found[way]}" for way, holds in ways.items())
    names = " ".join(f"WHEN {holds} THEN '{way}'" for way, holds in ways.items())
    alike = "d.shopper = {0}.shopper AND d.product_id = {0}.product_id"
    of_request = (alike + " AND d.request_id = {0}.name").format
    same = (alike + ' AND d."at" >= {0}."at"').format
    return f"""INSERT INTO attributed
    WITH by_query AS (
        SELECT shopper, product_id, query, "at", max(list) AS list FROM shown
        WHERE query NOTNULL GROUP BY shopper, product_id, query, "at"
    ), by_touch AS (
        SELECT shopper, product_id, "at", max(list) AS list FROM attributed
        WHERE list NOTNULL GROUP BY shopper, product_id, "at"
    ), by_product AS (
        SELECT shopper, product_id, "at", max(list) AS list FROM shown
        GROUP BY shopper, product_id, "at"
    ), requested AS (
        SELECT d.*, coalesce(own.list, sole.list) AS requested
        FROM (FROM deed WHERE kind IN ({_listed(kinds)})) d
        LEFT JOIN shown AS own ON {of_request("own")} AND d.session_id = own.visit
        LEFT JOIN shown AS sole ON {of_request("sole")} AND sole.visit IS NULL
    )
    SELECT d.* EXCLUDE (requested), CASE {lists} END AS list, CASE {names} END AS attribution
    FROM requested d
    ASOF LEFT JOIN by_query AS query ON {same("query")} AND d.query = query.query
    ASOF LEFT JOIN by_touch AS touch ON {same("touch")}
    ASOF LEFT JOIN by_product AS product ON {same("product")}"""


RETURNED = f"CREATE TEMP TABLE returned AS SELECT id FROM {sent_back('deed', 'id')}"
"""The purchases that were sent back."""


def outcomes(settings: LabelSettings) -> str:
    """Return what became of each shown product.

    The strongest deed counts, except that a product of which all was sent back counts nothing.
    """
    grades = " ".join(f"WHEN '{kind}' THEN {grade}" for kind, grade in GRADES.items())
    long = int(settings.long_dwell_s * 1000)
    return f"""CREATE TEMP TABLE outcome AS
    WITH done AS (
        SELECT *, id IN (FROM returned) AS sent,
            CASE kind {grades} ELSE coalesce((dwell_ms >= {long})::INT, 0) END AS grade
        FROM attributed WHERE list NOTNULL
    )
    SELECT shopper, list, product_id,
        bool_or(sent) AND NOT bool_or(kind = 'purchase' AND NOT sent) AS sent_back,
        CASE WHEN sent_back THEN 0 ELSE max(grade) END AS grade,
        CASE WHEN sent_back THEN 'return' ELSE max(kind)::VARCHAR END AS outcome,
        arg_max(attribution, (kind, "at")) AS attribution, max(dwell_ms) AS dwell_ms,
        bool_and(kind = 'view') AS only_viewed
    FROM done GROUP BY shopper, list, product_id"""


def places(settings: LabelSettings) -> str:
    """Return the products of settled lists in their places; takes the parameter ``as_of``.

    Pages of one request that count from 1 each are put in a row.
    """
    settle = _interval(settings.settle_hours * 3600)
    return f"""CREATE TEMP TABLE place AS
    WITH listed AS (
        SELECT *, count(DISTINCT "position") OVER whole < count("position") OVER whole AS repeated,
            min("at") OVER whole AS shown_at
        FROM shown WHERE "position" NOTNULL
        WINDOW whole AS (PARTITION BY shopper, list)
    )
    SELECT l.shopper, l.list, l.name, l.product_id, l.shown_at, l.asked, l.session, o.grade,
        o.outcome, o.attribution, o.dwell_ms, o.only_viewed,
        CASE WHEN repeated THEN row_number() OVER (PARTITION BY l.shopper, l.list
            ORDER BY l."at", l."position", l.product_id) ELSE l."position" END::INT AS "position"
    FROM listed l LEFT JOIN outcome o USING (shopper, list, product_id)
    WHERE shown_at < $as_of - {settle}"""


LISTS = """SELECT concat(name, CASE WHEN nth > 1 THEN concat('#', nth) END) AS request_id,
        * EXCLUDE (name, nth, list)
    FROM (SELECT min(name) AS name, list,
        row_number() OVER (PARTITION BY min(name) ORDER BY min(shown_at), shopper, list) AS nth,
        'pseudonym:' || replace(shopper::VARCHAR, '-', '') AS user_id,
        'session-' || min(session) AS session_id, min(asked) AS query,
        timezone('UTC', min(shown_at)) AS "at", '' AS policy,
        list(struct_pack(product_id := product_id, position := "position",
            propensity := NULL::DOUBLE, prefix_propensity := NULL::DOUBLE,
            grade := coalesce(grade, 0), outcome := outcome, attribution := attribution,
            dwell_ms := dwell_ms) ORDER BY "position") AS items
        FROM place GROUP BY shopper, list)
    ORDER BY "at", list"""
"""One row a list, in the form of `reranker.schema.Impression`; recurring names are numbered."""


def _listed(kinds: tuple[str, ...]) -> str:
    return ", ".join(f"'{kind}'" for kind in kinds)


def _interval(seconds: float) -> str:
    return f"to_microseconds({int(seconds * _MICROSECONDS)})"
