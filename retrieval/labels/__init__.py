"""Labels: which of the products that were shown the shoppers wanted, and how much."""

from retrieval.labels.build import LabelReport, build_labels

__all__ = ["LabelReport", "build_labels"]
