"""The report of a benchmark, made from its result files alone."""

from mtadapt.zoo.report.writing import write_report

__all__ = ["write_report"]
