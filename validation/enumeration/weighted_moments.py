"""Weighted mean and covariance, one value at a time."""

from __future__ import annotations

import torch
from torch import Tensor


class WeightedMoments:
    """Mean and (total or full) covariance, updated without cancellation.

    Args:
        covariance: keep the full covariance of all entries, not its trace alone.
    """

    def __init__(self, covariance: bool = False) -> None:
        self.weight = 0.0
        self.full = covariance

    def add(self, value: Tensor, probability: float, within: float = 0.0) -> None:
        """One value, or the mean of several and their total variance `within` themselves."""
        if self.weight == 0.0:
            self.mean = torch.zeros_like(value)
            self.scatter = value.new_zeros(value.numel(), value.numel()) if self.full else value.new_zeros(())
        self.weight += probability
        before = value - self.mean
        self.mean = self.mean + before * (probability / self.weight)
        after = value - self.mean
        product = torch.outer(before, after) if self.full else (before * after).sum() + within
        self.scatter += probability * product

    def total_variance(self) -> float:
        """Sum of the variances of all entries."""
        return max(float(self.scatter) / self.weight, 0.0)

    def matrix(self) -> Tensor:
        """Full covariance."""
        return (self.scatter + self.scatter.T) / (2 * self.weight)
