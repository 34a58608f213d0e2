"""What a saved vector index says of itself, in a file beside it."""

from pathlib import Path
from typing import Literal

from reranker.errors import DataError
from reranker.schema import Value

Kind = Literal["exact", "approximate"]

FORMAT = 1
MANIFEST = "manifest.json"
REMEDY = "run `shelfwise index build`"


class VectorManifest(Value):
    """Of which model, size and quality an index is.

    Attributes:
        model: fingerprint of the embedder.
        numbers: in which the vectors are kept.
        cells: number of IVF cells; 1 in an exact index.
        nprobe: cells that an unfiltered search looks into.
        trained_on: number of products when cells and nprobe were chosen.
        recall: recall@100 against exact search that was measured then; 1 for an exact index.
        file: the FAISS index, beside the manifest.
    """

    format: int = FORMAT
    model: str
    dimension: int
    metric: Literal["inner_product"] = "inner_product"
    kind: Kind
    numbers: Literal["float16", "float32"] = "float32"
    products: int
    exact_limit: int
    ann_recall: float
    cells: int
    nprobe: int
    trained_on: int
    recall: float
    file: str = ""
    sha256: str = ""


def read_manifest(path: Path) -> VectorManifest:
    """Read a manifest.

    Raises:
        DataError: it is missing or corrupt.
    """
    try:
        return VectorManifest.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no vector index; {REMEDY}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the manifest is corrupt; {REMEDY}") from error
