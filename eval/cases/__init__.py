"""Cases: what is ranked for whom, and what would have been right.

The documented form of a cases file is in `eval.cases.values`; `read_cases` reads and checks it.
"""

from eval.cases.reading import CaseFile, RejectedCases, read_cases, write_cases
from eval.cases.values import Case, Target

__all__ = ["Case", "CaseFile", "RejectedCases", "Target", "read_cases", "write_cases"]
