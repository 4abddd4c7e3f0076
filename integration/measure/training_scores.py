"""Several kinds of scores side by side in one training: each sees what it would see by itself, and none decides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from wtacrs.estimators import Estimator, joint_norms
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.score_memory.gradient_norms import GradientNorms
from wtacrs.integration.score_memory.seen_rows import SeenRows

ROW_NORMS, ORACLE = "row-norms", "oracle"


class _Drawn(NamedTuple):
    """The live rows of an input, and the scores that every kind gives them."""

    x: Float[Tensor, "p d"]
    live: Bool[Tensor, " n"]
    scores: dict[str, Float64[Tensor, " p"]]


@dataclass(eq=False)
class _Note:
    """What a forward pass has shown: inputs by layer, variances by layer, kind and budget, and the rows kept."""

    drawn: dict[str, _Drawn] = field(default_factory=dict)
    variances: dict[str, dict[tuple[str, int | float], float]] = field(default_factory=dict)
    kept: dict[object, int] = field(default_factory=dict)


class SideBySide(GradientNorms):
    """Memories of several kinds, fed by the same passes; layers are sampled by their row norms.

    While `measuring`, the variances of every kind are computed in closed form, on every batch before anything is learned
    from it. Those of layers that share a sample are added up; "oracle" goes by ‖x_i‖‖y_i‖ of each.

    Args:
        memories: by kind.
        estimators: whose variances are measured, by budget.

    Attributes:
        measuring: whether variances are computed.
        ratios: by kind and budget, by layer that drew, the variance over that under row norms, one number a batch.
        rows_bytes: the most bytes that a batch kept of its inputs for the memories.
    """

    kind: ClassVar[str] = "side-by-side"
    needs_ids: ClassVar[bool] = True

    def __init__(self, memories: Mapping[str, GradientNorms], estimators: Mapping[int | float, Estimator]) -> None:
        super().__init__(floor=1.0)
        self._memories, self._estimators = dict(memories), dict(estimators)
        self.measuring = False
        self.ratios: dict[tuple[str, int | float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.rows_bytes = 0
        self._notes: list[_Note] = []

    def scores(
        self,
        current: ForwardPass,
        layer: str,
        stream: Stream | None,
        x: Float[Tensor, "*batch d"],
        norms: Float64[Tensor, " n"],
        mask: Bool[Tensor, " n"] | None,
    ) -> Float64[Tensor, " n"]:
        """Row norms, whatever the memories say."""
        found = {
            kind: memory.scores(current, layer, stream, x, norms, mask) for kind, memory in self._memories.items()
        }
        if self.measuring:
            live = torch.ones_like(norms, dtype=torch.bool) if mask is None else mask
            rows = x.detach().reshape(-1, x.shape[-1])[live].clone()
            both = {ROW_NORMS: norms[live]} | {kind: scores[live] for kind, scores in found.items()}
            self._note(current).drawn[layer] = _Drawn(rows, live, both)
        return norms

    def seen_rows(
        self, x: Float[Tensor, "*batch d"], mask: Bool[Tensor, " n"] | None, generator: torch.Generator
    ) -> SeenRows | None:
        """Of the first memory that wants any; all of them see these."""
        wanted = (memory.seen_rows(x, mask, generator) for memory in self._memories.values())
        return next((rows for rows in wanted if rows is not None), None)

    def grad_rows_hook(
        self, current: ForwardPass, layer: str, stream: Stream | None, shape: torch.Size, call: object
    ) -> Callable[[Tensor, SeenRows | None], None]:
        """Every memory's own hook, and the measurement."""
        hooks = [m.grad_rows_hook(current, layer, stream, shape, call) for m in self._memories.values()]
        return partial(self._observe, self._note(current), layer, call, hooks)

    def enter(self) -> None:
        """Enter what was seen into every memory, and take the ratios of the passes that are over."""
        for memory in self._memories.values():
            memory.enter()
        for note in self._notes:
            self.rows_bytes = max(self.rows_bytes, sum(note.kept.values()))
            for layer, found in note.variances.items():
                for (kind, budget), variance in found.items():
                    beside = found[ROW_NORMS, budget]
                    if beside > 0:
                        self.ratios[kind, budget][layer].append(variance / beside)
        self._notes = []

    def attach(self, model: nn.Module) -> None:
        """See `GradientNorms.attach`."""
        for memory in self._memories.values():
            memory.attach(model)

    @property
    def nbytes(self) -> int:
        """Of all memories."""
        return sum(memory.nbytes for memory in self._memories.values())

    def state_dict(self) -> dict[str, Any]:
        """Of all memories; what was measured is no part of it."""
        self.enter()
        return {"kind": self.kind, "memories": {kind: m.state_dict() for kind, m in self._memories.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `GradientNorms.load_state_dict`."""
        self._check_kind(state)
        for kind, memory in self._memories.items():
            memory.load_state_dict(state["memories"][kind])

    def _expected(
        self,
        current: ForwardPass,
        layer: str,
        stream: Stream | None,
        x: Float[Tensor, "*batch d"],
        mask: Bool[Tensor, " n"] | None,
    ) -> None:
        return None

    def _note(self, current: ForwardPass) -> _Note:
        if self not in current.notes:
            self.enter()
            current.notes[self] = _Note()
            self._notes.append(current.notes[self])
        note: _Note = current.notes[self]
        return note

    def _observe(
        self,
        note: _Note,
        layer: str,
        call: object,
        hooks: Sequence[Callable[[Tensor, SeenRows | None], None]],
        dy: Tensor,
        seen: SeenRows | None,
    ) -> None:
        for hook in hooks:
            hook(dy, seen)
        note.kept[call] = 0 if seen is None else sum(t.numel() * t.element_size() for t in seen)
        drawn = note.drawn.get(layer)
        if drawn is None:
            return
        dy = dy[drawn.live]
        kinds = drawn.scores | {ORACLE: joint_norms(drawn.x, dy)}
        sums = note.variances.setdefault(layer, defaultdict(float))
        for budget, estimator in self._estimators.items():
            for kind, scores in kinds.items():
                sums[kind, budget] += float(estimator.variance(drawn.x, dy, scores=scores))
