"""One evaluation from files to figures; a killed one goes on where it was."""

from eval.run.evaluation import Models, evaluate
from eval.run.request import EvaluationRequest
from eval.run.results import Evaluation

__all__ = ["Evaluation", "EvaluationRequest", "Models", "evaluate"]
