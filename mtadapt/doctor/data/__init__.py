"""Data sets on the disk: which layout, how much of what, and the first thing that is wrong."""

from mtadapt.doctor.data.layouts import examine_data

__all__ = ["examine_data"]
