"""Judge a generative optimizer: twins, baselines, controls that must fail, and figures of all of it."""

from .compare import evaluate
from .config import EvaluateConfig
from .promotion import Verdict, verdict
from .report import report_markdown, terminal_table
from .results import Comparison

__all__ = ["Comparison", "EvaluateConfig", "Verdict", "evaluate", "report_markdown", "terminal_table", "verdict"]
