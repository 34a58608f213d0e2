"""The page of an evaluation: self-contained HTML for merchandisers and scientists."""

from eval.report.page import write_json, write_page

__all__ = ["write_json", "write_page"]
