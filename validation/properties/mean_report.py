"""The mean of an estimator as a report: how many times the exact product it is, and what lies elsewhere."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator
from wtacrs.validation.problems import Problem
from wtacrs.validation.statistics.monte_carlo import Running

# standard errors beyond which a number is reported rather than left out
_CLEAR = 4.0


class MeanTracker(Estimator):
    """An estimator that hands on another's draws and keeps their mean; it changes nothing about them.

    Args:
        inner: the estimator that draws.
        problem: the rows it will be run on.
        part: some of these rows, whose own scale is reported too; their pairs must be orthogonal to those of the others.
        part_name: what to call them.
    """

    name = "mean_tracker"

    def __init__(
        self, inner: Estimator, problem: Problem, part: Problem | None = None, part_name: str = ""
    ) -> None:
        self.inner = inner
        self.traits = inner.traits  # type: ignore[misc]
        self.target = _product(problem)
        self.part = None if part is None else _product(part)
        self.part_name = part_name
        self.draws = 0
        self.mean = torch.zeros_like(self.target)
        self.squares = 0.0
        self.along, self.along_part = Running(), Running()

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[object, ...]:
        """As the inner one."""
        return self.inner.compress(x, scores=scores, generator=generator)

    def contract(self, saved: tuple[object, ...], dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """As the inner one; the estimate enters the mean."""
        estimate = self.inner.contract(saved, dy)
        self._take(estimate.detach().double())
        return estimate

    def _take(self, estimate: Float64[Tensor, "m d"]) -> None:
        self.draws += 1
        before = estimate - self.mean
        self.mean = self.mean + before / self.draws
        self.squares += float((before * (estimate - self.mean)).sum())
        self.along.add(_share(estimate, self.target))
        if self.part is not None:
            self.along_part.add(_share(estimate, self.part))

    def __repr__(self) -> str:
        return repr(self.inner)

    @property
    def scale(self) -> tuple[float, float]:
        """`⟨EĜ, G⟩ / ‖G‖²` and its standard error."""
        return self.along.mean, self.along.error

    def report(self) -> str:
        """The mean as a multiple of the exact product, with what lies in other directions if that is clear."""
        size = float(self.target.norm())
        if size == 0.0:
            return f"the exact product is zero, the mean has norm {float(self.mean.norm()):.2g}"
        parts = [f"the mean is {_figure(*self.scale)} × the exact product"]
        if self.part is not None:
            parts.append(
                f"{self.part_name} come out at {_figure(self.along_part.mean, self.along_part.error)} × theirs"
            )
        elif self.beside is not None:
            parts.append(f"plus {self.beside / size:.2g} ‖G‖ in other directions")
        return ", ".join(parts)

    @property
    def beside(self) -> float | None:
        """Norm of the mean's part orthogonal to G, or None where noise alone explains it."""
        rest = float((self.mean - self.along.mean * self.target).square().sum())
        noise = self.squares / max(self.draws - 1, 1) / max(self.draws, 1)
        rounding = (1e-6 * float(self.target.norm())) ** 2
        return math.sqrt(rest - noise) if rest > _CLEAR * noise + rounding else None


def _product(problem: Problem) -> Float64[Tensor, "m d"]:
    return problem.dy.double().T @ problem.x.double()


def _share(estimate: Tensor, target: Tensor) -> float:
    squared = float(target.square().sum())
    return float((estimate * target).sum()) / squared if squared else 0.0


def _figure(value: float, error: float) -> str:
    """`0.300 ± 0.002`: the value to the first digit of its error, but to six digits at most."""
    if not math.isfinite(error) or error <= 1e-6 * abs(value):
        return f"{value:.6g}"
    digits = min(max(0, -math.floor(math.log10(error))), 6)
    return f"{value:.{digits}f} ± {error:.{digits}f}"
