"""Judge a generative optimizer: twins, baselines, controls that must fail, and figures of all of it."""

from .compare import evaluate
from .config import EvaluateConfig
from .headline import judgement, show_judged
from .promotion import Verdict, verdict
from .rates import at_best_rates
from .report import report_markdown, terminal_table
from .results import Comparison
from .summary import Summary

__all__ = [
    "Comparison",
    "EvaluateConfig",
    "Summary",
    "Verdict",
    "at_best_rates",
    "evaluate",
    "judgement",
    "report_markdown",
    "show_judged",
    "terminal_table",
    "verdict",
]
