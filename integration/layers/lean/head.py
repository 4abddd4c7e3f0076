"""Output layers of language models whose logits are never whole, for any model that calls `F.cross_entropy`.

A head in training returns `DeferredLogits` (see `deferred_logits`), which `F.cross_entropy` consumes a piece of rows at a
time (see `cross_entropy`).

**What stays stock.** Eval mode, a forward pass without gradients, `torch.compile`, `torch.func`, parametrized weights,
and an input that needs no gradient before a frozen weight. `outputs.logits` of a training step is computed when it is
read, from the weight as it is then: after the optimizer changed the weight this is refused, since it would silently be
another model's. `torch.autograd.grad` with respect to such logits finds no path, since the loss does not go through them;
`retain_grad()` or a hook before the loss makes them real. A head that `fully_shard` was given by itself stays stock,
since its weight is in pieces again by then; in a model that is sharded as a whole the hooks of `fully_shard` on outputs
read the logits after the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._C import _functorch

from wtacrs.estimators import Estimator, InputError, make, row_norms
from wtacrs.estimators.rows.row_estimator import RowEstimator
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.compression import autocast_dtype
from wtacrs.integration.layers.dynamic_classes import is_parametrized, own_class, set_class
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad, make_stock
from wtacrs.integration.layers.lean.cross_entropy import check_mode, linear_cross_entropy, working_dtype
from wtacrs.integration.layers.lean.deferred_logits import Defer, Deferred, DeferredLogits, Source, versions_of
from wtacrs.integration.layers.lean.linear import LeanLinear
from wtacrs.integration.layers.lean.options import HeadMode
from wtacrs.integration.layers.least_elements import is_too_small
from wtacrs.integration.parallel.wrappers import unwrapped


class LeanHead(nn.Linear):
    """The output layer of a language model; a linear layer becomes one, and stock again, by a change of its class.

    Attributes:
        mode: see `linear_cross_entropy`.
        estimator: of dW, a row design; None for the exact one.
        min_elements: inputs with fewer numbers than this have an exact dW.
        min_rows: inputs with fewer rows than this have an exact dW.
        context: of the model, from which a sampled dW draws; None draws from torch's default generator.
        path: its name in the model.
    """

    mode: HeadMode = "forward"
    estimator: RowEstimator | None = None
    min_elements: int = 0
    min_rows: int = 0
    context: ForwardContext | None = None
    path: str = ""

    def forward(self, input: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch V"]:
        """Deferred logits in training, real ones else."""
        if not self._defers(input):
            return super().forward(input)
        weight, bias = self.weight, self.bias
        source = Source(self, input, weight, bias, versions_of(input, weight, bias), autocast_dtype(input))
        layout = torch.empty(*input.shape[:-1], len(weight), dtype=source.dtype, device="meta")
        logits: Tensor = Defer.apply(input, weight, bias, Deferred(source, layout))
        return logits

    def _defers(self, input: Tensor) -> bool:
        return (
            self.training
            and type(self) is LeanHead  # not sharded by itself
            and torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and _functorch.peek_interpreter_stack() is None
            and not is_parametrized(self)
            and (input.requires_grad or self.weight.requires_grad)
            and (input.dtype == self.weight.dtype or torch.is_autocast_enabled(input.device.type))
            and type(self.weight).__name__ != "DTensor"
            and input.ndim > 1
        )

    def loss(self, logits: DeferredLogits, labels: Int[Tensor, " n"], **options: Any) -> Tensor:
        """Cross-entropy of deferred logits `[n, V]`, in the dtype that the stock function would return."""
        source = logits._deferred.source
        source.check()
        row_weights, drawn = self._row_weights(source.x, labels, options["ignore_index"])
        loss = linear_cross_entropy(
            source.x, source.weight, source.bias, labels,
            mode=self.mode, row_weights=row_weights, drawn=drawn, dtype=source.dtype, **options,
        )  # fmt: skip
        kind = source.x.device.type
        return loss.to(working_dtype(logits.dtype) if torch.is_autocast_enabled(kind) else logits.dtype)

    def _row_weights(self, x: Tensor, labels: Tensor, ignore_index: int) -> tuple[Float[Tensor, " n"] | None, int]:
        """How often each row counts in dW, and how many were drawn; a row without a label is never drawn."""
        if self.estimator is None or not self.weight.requires_grad or not torch.is_grad_enabled():
            return None, 0
        if is_too_small(x, self.min_elements, self.min_rows):
            return None, 0
        with torch.no_grad():
            counted = (labels != ignore_index).nonzero().squeeze(1)
            rows = x.detach()[counted]
            scores = row_norms(rows)
            if not len(rows) or not bool(torch.isfinite(scores).all()):
                return None, 0  # exact: NaN goes where it goes in the stock layer
            current = None if self.context is None else self.context.current
            generator = None if current is None else current.generator(self.path, x.device)
            saved = self.estimator.compress(rows, scores=scores, generator=generator)
            weights = torch.zeros(len(x), dtype=working_dtype(x.dtype), device=x.device)
            weights.index_add_(0, counted[saved.indices.long()], saved.weights.to(weights.dtype))
            return weights, len(saved.indices)


def set_lean_head(
    model: nn.Module, *, mode: HeadMode = "forward", estimator: str | Estimator | None = None
) -> dict[str, str]:
    """Turn the output layers of the language models within a model into lean ones, in place.

    Parameters, hooks and state-dict keys stay. Output layers are those that `get_output_embeddings` names.

    Args:
        model: any module.
        mode: "forward" or "again" (see the module).
        estimator: a row design for dW, or its spec; None for what a layer has, and for the exact one in a stock layer.

    Returns:
        Name of an output layer → why it stays stock; of the model itself where there is none. Empty if all are lean.

    Raises:
        InputError: on another mode, or an estimator that draws no rows: what it keeps of X needs dY whole.
    """
    check_mode(mode)
    design = make(estimator) if isinstance(estimator, str) else estimator
    if design is not None and not isinstance(design, RowEstimator):
        raise InputError(f"estimator={estimator!r}: the output layer is computed by rows; choose a row design")
    model = unwrapped(model)
    heads, reasons = heads_ahead(model)
    for name, head in heads.items():
        its_own = design or getattr(head, "estimator", None)
        if isinstance(head, EstimatedWeightGrad):
            make_stock(head)
        set_class(head, LeanHead)
        assert isinstance(head, LeanHead)
        head.mode, head.estimator, head.path = mode, its_own, name
        head.context = ForwardContext.of(model)
    return reasons


def restore_head(model: nn.Module) -> list[str]:
    """Undo `set_lean_head`.

    Returns:
        Names of the layers that are stock again.
    """
    names = []
    for name, module in unwrapped(model).named_modules():
        if own_class(module) is LeanHead:
            for attribute in ("mode", "estimator", "min_elements", "min_rows", "context", "path"):
                vars(module).pop(attribute, None)
            set_class(module, nn.Linear)
            names.append(name)
    return names


def takes(layer: nn.Module, estimator: Estimator) -> bool:
    """Whether a layer can have its dW by an estimator: a lean output layer by row designs alone."""
    return not isinstance(layer, LeanHead) or isinstance(estimator, RowEstimator)


def output_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Output layers of a model by name, those that `get_output_embeddings` names."""
    names = {module: name for name, module in model.named_modules()}
    found = {}
    for module in model.modules():
        ask = getattr(module, "get_output_embeddings", None)
        head = ask() if callable(ask) else None
        if isinstance(head, nn.Module) and head in names:
            found[names[head]] = head
    return found


def heads_ahead(model: nn.Module, *, undone: bool = False) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """What `set_lean_head` would do; nothing is changed.

    Args:
        model: as there.
        undone: whether other lean classes of linear layers are to be taken away before.

    Returns:
        Output layers that can be lean, by name, and the name of all others → why they stay stock.
    """
    heads = output_layers(model)
    if not heads:
        return {}, {"": f"{type(model).__name__} has no output layer by get_output_embeddings"}
    asked = {name: head for name, head in heads.items() if not (undone and isinstance(head, LeanLinear))}
    reasons = {name: reason for name, head in asked.items() if (reason := stays_stock(head)) is not None}
    return {name: head for name, head in heads.items() if name not in reasons}, reasons


def stays_stock(head: nn.Module) -> str | None:
    """Why an output layer cannot be lean; None if it can."""
    kind = own_class(head)
    if type(head) is not kind:
        return f"{type(head).__name__}: sharded or parametrized"
    if isinstance(head, EstimatedWeightGrad) and head.stock is nn.Linear:
        if isinstance(head.estimator, RowEstimator):
            return None
        return f"its dW is by {head.estimator!r}, which draws no rows"
    if kind not in (nn.Linear, LeanHead):
        return f"{kind.__name__} is no plain nn.Linear"
    if "forward" in vars(head):
        return "its forward was replaced on the instance"
    return None
