"""Benchmark of checkpoints: read its file, run its grid, here or under Slurm."""

from mtadapt.zoo.benchmark.cell import Launch
from mtadapt.zoo.benchmark.collect import collect
from mtadapt.zoo.benchmark.grid import Cell, Grid
from mtadapt.zoo.benchmark.launchers import run_locally
from mtadapt.zoo.benchmark.plan import Plan
from mtadapt.zoo.benchmark.preflight import check
from mtadapt.zoo.benchmark.slurm import Slurm, submit
from mtadapt.zoo.benchmark.zoo_file import Zoo, read_zoo

__all__ = ["Cell", "Grid", "Launch", "Plan", "Slurm", "Zoo", "check", "collect", "read_zoo", "run_locally", "submit"]
