"""How good a few templates are on a dataset: protocol, metrics, summary, report."""

from fewshot.evaluation.metrics import LabelScores, label_scores
from fewshot.evaluation.protocol import evaluate
from fewshot.evaluation.report import write_report
from fewshot.evaluation.summary import summarise, summarise_cases
from fewshot.evaluation.table import print_summary, prompts_table, summary_table
from fewshot.evaluation.templates import sample_templates

__all__ = [
    "LabelScores",
    "evaluate",
    "label_scores",
    "print_summary",
    "prompts_table",
    "sample_templates",
    "summarise",
    "summarise_cases",
    "summary_table",
    "write_report",
]
