"""The small Open Bandit set: real logged clicks of a fashion shop, with exact propensities.

Source: Saito et al. (2021), "Open Bandit Dataset and Pipeline"; CC BY 4.0. It comes inside the
Python package `obp`, which is unpacked, neither installed nor imported. Two logging policies
(random; Bernoulli Thompson sampling), three campaigns, 10,000 rows each.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from eval.logs import LoggedLists
from eval.statistics.estimates import codes
from reranker.errors import DataError, ModelUnavailable
from reranker.models.package_source import unpack_package
from reranker.ports import Progress

CAMPAIGNS = ("all", "men", "women")
_PACKAGE = "obp==0.4.1"
_SHA256 = "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
_FIELDS = ("item_id", "position", "click", "propensity_score")


def fetch_open_bandit(folder: Path, *, progress: Progress | None = None) -> Path:
    """Fetch the set into a folder, unless it is there, and return the folder.

    Raises:
        ConfigError: pip is missing, or the folder holds other files.
        DataError: the package cannot be fetched.
    """
    try:
        return unpack_package(
            _PACKAGE,
            wheel_sha256=_SHA256,
            wheel_size=1_338_290,
            prefix="obp/dataset/obd/",
            target=folder,
            progress=progress,
        )
    except ModelUnavailable as error:
        message = f"the Open Bandit set needs the Python package {_PACKAGE} in {folder}: {error}"
        raise DataError(message) from error


def read_open_bandit(
    folder: Path,
    policy: Literal["random", "bts"],
    campaigns: tuple[str, ...] = CAMPAIGNS,
) -> LoggedLists:
    """Read the rows of one logging policy; the campaign stands as the query.

    A row is one item in one of three places: the lists that the rows came from are not in the data,
    and neither is who the shopper was. Each row is thus a request and a shopper of its own, and
    intervals are those of independent rows.

    Raises:
        DataError: a file is missing, or a row is wrong.
    """
    rows = [row for campaign in campaigns for row in _rows(folder, policy, campaign)]
    names = tuple(dict.fromkeys(product for _, product, _, _, _ in rows))
    propensity = np.array([row[3] for row in rows])
    count = np.arange(len(rows))
    return LoggedLists(
        request_ids=tuple(map(str, count)),
        shoppers=count,
        queries=codes([row[0] for row in rows]),
        query_names=tuple(dict.fromkeys(row[0] for row in rows)),
        products=names,
        request=count,
        product=codes([row[1] for row in rows]),
        position=np.array([row[2] for row in rows], np.int64),
        propensity=propensity,
        prefix_propensity=propensity.copy(),
        grade=np.array([row[4] for row in rows], np.int64),
    )


def _rows(folder: Path, policy: str, campaign: str) -> Iterator[tuple[str, str, int, float, int]]:
    file = folder / policy / campaign / f"{campaign}.csv"
    name = f"{policy}/{campaign}/{file.name}"
    try:
        with file.open(encoding="utf-8", newline="") as source:
            for number, row in enumerate(csv.DictReader(source), 1):
                try:
                    item, position, click, chance = (row[field] for field in _FIELDS)
                    product = f"{campaign}/{item}"
                    yield campaign, product, int(position), float(chance), int(click)
                except (KeyError, ValueError) as error:
                    raise DataError(f"{name}, row {number}: {error!r}") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error}") from error
