"""How well landmarks are found from a few templates: protocol, metrics, summary, report."""

from fewshot.evaluation.landmarks.metrics import LandmarkScore, landmark_scores
from fewshot.evaluation.landmarks.protocol import evaluate_landmarks
from fewshot.evaluation.landmarks.report import write_report
from fewshot.evaluation.landmarks.table import print_summary, summary_table

__all__ = [
    "LandmarkScore",
    "evaluate_landmarks",
    "landmark_scores",
    "print_summary",
    "summary_table",
    "write_report",
]
