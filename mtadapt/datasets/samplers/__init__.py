"""Samplers."""

from mtadapt.datasets.samplers.heterogeneous_batch_sampler import HeterogeneousBatchSampler

__all__ = ["HeterogeneousBatchSampler"]
