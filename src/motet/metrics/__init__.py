"""Metrics of tasks, and of whole methods."""

from motet.metrics.delta_m import delta_m, log_ratio
from motet.metrics.mean_rank import mean_rank
from motet.metrics.reference import Reference, references
from motet.metrics.tasks import METRICS, Metric

__all__ = ["METRICS", "Metric", "Reference", "delta_m", "log_ratio", "mean_rank", "references"]
