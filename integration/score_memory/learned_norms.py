"""Gradient norms predicted from the input itself, by one vector per layer that is learned while the model trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from wtacrs.estimators import row_norms
from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.score_memory.gradient_norms import GradientNorms
from wtacrs.integration.score_memory.predictor import Predictor, fitted, predicted
from wtacrs.integration.score_memory.seen_rows import PLACE_FEATURES, SeenRows, place_features, seen_rows
from wtacrs.validation.arguments import checked_integer, is_number

ROWS = 64
RATE = 1.0
"""Of 0.3 to 5 about the best on small T5, GPT-2 and MiniLM; with 0.3 and 2 the variance was 0 to 15 % larger."""
FLOOR = 0.1


@dataclass(eq=False)
class _Note:
    """The predictors in use in a forward pass, and what backward passes through it have shown."""

    predictors: dict[str, Predictor]
    seen: dict[object, tuple[str, SeenRows, Float64[Tensor, " k"]]] = field(default_factory=dict)


class LearnedNorms(GradientNorms):
    """`exp(v · (x_i, place of i))` as a guess of ‖y_i‖, with a vector v per layer that every backward pass fits.

    Nothing needs to be known of the example or the token, as in a first epoch. The place says whether the row is the
    first or last of its sequence, and how far from them: a causal model cannot tell the last token otherwise. What v is
    fitted to is a systematic sample of the live rows, kept as they are until the backward pass shows their dY: of the
    rows that the estimator keeps anyway, a fit would depend on the estimator, which may hold codes or sketches. See
    `predictor` for the fit, which minimises the second moment `Σ w_i²/p_i` of CRS.

    Bytes: of every input `rows` rows in bf16, 2 per number and 16 per row, which `track_memory`, the receipt of
    `finetune` and checkpointing see as they see the estimator's; the memory itself has 8 per feature and layer and 40
    per layer. Layers that share an input count once. Time: one product of x and a vector in the forward pass.

    `wtacrs study scores` measures what it is worth on a model. What it does not tell is how large an example's loss is,
    and in trained models most of the variance comes from that. With 10 % of the rows the variance over row norms', median
    over layers, was 0.56 on a small T5 on SST-2 and 0.66 on docstrings. With more features of the example it was:

    | feature | SST-2 | docstrings |
    |---|---|---|
    | lengths of source and target | 0.56 | 0.66 |
    | mean of its rows | 0.57 | 0.69 |
    | loss at the last visit, an epoch ago | 0.48 | 0.66 |
    | sign of the label times the mean of its rows | 0.41 | – |
    | its loss now, which the forward pass does not know yet | 0.19 | 0.44 |

    Summed over layers the gain can be much smaller than the median says: where one layer has most of the variance, as q,
    k and v of the first block of that T5 after 160 steps (59 %), all depends on that layer (1.01 there, 0.86 in all).
    Training has not shown a difference: after 300 steps on docstrings with 10 % of the rows the dev losses of three seeds
    were 0.62, 0.65, 0.69 by row norms and 0.69, 0.61, 0.63 by learned scores.

    Args:
        rows: k, of every input, at least 3.
        rate: how far v moves (see `fitted`).
        floor: share of the probability that is spread evenly. Smaller than for what is remembered of single rows, since
            v is fitted to rows of many batches: 0.3 had 5 % more variance on small T5 and MiniLM, as much on GPT-2.
    """

    kind: ClassVar[str] = "learned"
    sees_rows: ClassVar[bool] = True

    def __init__(self, rows: int = ROWS, *, rate: float = RATE, floor: float = FLOOR) -> None:
        super().__init__(floor=floor)
        self._rows = checked_integer(rows, "rows", least=3)
        if not is_number(rate) or not 0 < rate < float("inf"):
            raise InputError(f"rate={rate!r} must be a number above 0")
        self._rate = float(rate)
        self._predictors: dict[str, Predictor] = {}
        self._seen: list[_Note] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the predictors: 8 per feature and layer."""
        return sum(
            tensor.numel() * tensor.element_size() for found in self._predictors.values() for tensor in found
        )

    def state_dict(self) -> dict[str, Any]:
        """The predictors."""
        self.enter()
        layers = {
            layer: {name: tensor.cpu().clone() for name, tensor in found._asdict().items()}
            for layer, found in self._predictors.items()
        }
        return {"kind": self.kind, "layers": layers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the predictors (see `GradientNorms.load_state_dict`)."""
        self._check_kind(state)
        for layer, saved in state["layers"].items():
            shapes = {name: list(saved[name].shape) for name in ("v", "variances")}
            if saved["v"].ndim != 1 or len(saved["v"]) <= PLACE_FEATURES or shapes["v"] != shapes["variances"]:
                raise InputError(
                    f"scores='learned': {layer!r} has {shapes}; both must be one number per feature, of x and of places"
                )
        self._seen = []
        self._predictors = {
            layer: Predictor(**{name: tensor.clone() for name, tensor in saved.items()})
            for layer, saved in state["layers"].items()
        }

    def seen_rows(
        self, x: Float[Tensor, "*batch d"], mask: Bool[Tensor, " n"] | None, generator: torch.Generator
    ) -> SeenRows | None:
        """A systematic sample of the live rows."""
        return seen_rows(x, mask, min(self._rows, x.shape[:-1].numel()), generator)

    def grad_rows_hook(
        self, current: ForwardPass, layer: str, stream: Stream | None, shape: torch.Size, call: object
    ) -> Callable[[Tensor, SeenRows | None], None]:
        """See `GradientNorms.grad_rows_hook`."""
        return partial(self._observe, self._note(current), layer, call)

    def enter(self) -> None:
        """Fit the predictors, sample by sample in the order in which backward passes came to them."""
        for note in self._seen:
            for layer, seen, squares in note.seen.values():
                before = self._predictors.get(layer)
                self._predictors[layer] = fitted(before, seen, squares, self._rate)
            note.seen = {}
        self._seen = []

    def _expected(
        self,
        current: ForwardPass,
        layer: str,
        stream: Stream | None,
        x: Float[Tensor, "*batch d"],
        mask: Bool[Tensor, " n"] | None,
    ) -> Float64[Tensor, " n"] | None:
        found = self._note(current).predictors.get(layer)
        if found is None:
            return None
        learned = found.v.shape[0] - PLACE_FEATURES
        if learned != x.shape[-1]:
            raise InputError(
                f"scores='learned': {layer!r} reads {x.shape[-1]} features, and what was learned is of {learned}"
            )
        places = place_features(x.shape[:-1], mask, x.device)
        return predicted(found, x.reshape(-1, x.shape[-1]), places, mask)

    def _note(self, current: ForwardPass) -> _Note:
        if self not in current.notes:
            self.enter()
            current.notes[self] = _Note(dict(self._predictors))  # predictors are replaced, never changed
        note: _Note = current.notes[self]
        return note

    def _observe(self, note: _Note, layer: str, call: object, dy: Tensor, seen: SeenRows | None) -> None:
        if seen is None:
            return
        squares = row_norms(dy.index_select(0, seen.places.clamp(min=0))).square()
        if call in note.seen:
            squares = note.seen[call][2] + squares
        note.seen[call] = (layer, seen, squares)
        if note not in self._seen:
            self._seen.append(note)
