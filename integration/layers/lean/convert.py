"""`lean_`: find the modules of a model that can keep less, and convert them in place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.dynamic_classes import is_parametrized, own_class
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.lean.activation import ACTIVATIONS, LeanActivation, Terms
from wtacrs.integration.layers.lean.classes import LeanModule, make_lean, make_unlean, stock_class
from wtacrs.integration.layers.lean.codes import Codes
from wtacrs.integration.layers.lean.dropout import LeanDropout
from wtacrs.integration.layers.lean.embedding import LeanEmbedding, unfit_embedding
from wtacrs.integration.layers.lean.head import LeanHead, heads_ahead, output_layers, set_lean_head, stays_stock
from wtacrs.integration.layers.lean.linear import LeanConv1D, LeanLinear
from wtacrs.integration.layers.lean.norm import LeanLayerNorm, LeanRMSNorm
from wtacrs.integration.layers.lean.options import AttentionMode, Bits, DropoutMode, HeadMode, LeanOptions
from wtacrs.integration.layers.lean.probes import activation_name, rms_terms
from wtacrs.integration.layers.lean.recipes import Asked
from wtacrs.integration.layers.linear_layers import conv1d_class, is_linear_layer
from wtacrs.integration.layers.verdicts import unfit
from wtacrs.integration.parallel.wrappers import unwrapped

LeanFilter = Callable[[nn.Module, str], bool]
"""Called with a module and its name; False leaves it as it is."""


_OUTPUT_LAYER = "output layer, with its loss by pieces of rows"
_OptionsOf = Callable[[nn.Module, str], LeanOptions | None]


class LeanConversion(list[str]):
    """Names of the modules that keep less, in the order of `model.named_modules()`.

    Attributes:
        found: name → what the module was found to be.
        stays: name of a module without children that stays stock → why.
        attention: model within, or attention layer, whose attention stays stock → why; None if none was to be lean.
        head: output layer that stays stock → why; None if none was to be lean.
    """

    def __init__(
        self,
        found: Mapping[str, str] | None = None,
        stays: Mapping[str, str] | None = None,
        *,
        attention: Mapping[str, str] | None = None,
        head: Mapping[str, str] | None = None,
    ) -> None:
        self.found, self.stays = dict(found or {}), dict(stays or {})
        self.attention = None if attention is None else dict(attention)
        self.head = None if head is None else dict(head)
        super().__init__(self.found)

    @property
    def refused(self) -> dict[str, str]:
        """Parts whose attention or output layer was to be lean and stays stock, with the reason."""
        parts = {"attention": self.attention or {}, "output layer": self.head or {}}
        return {
            f"{what} of {name or 'the model'}": reason
            for what, found in parts.items()
            for name, reason in found.items()
        }


class _Found:
    """What a module is to become, or why it stays."""

    def __init__(self, mixin: type[LeanModule] | None, what: str, terms: Any = None) -> None:
        self.mixin, self.what, self.terms = mixin, what, terms


def lean_(
    model: nn.Module,
    *,
    filter_fn: LeanFilter | None = None,
    attention: AttentionMode | None = None,
    head: HeadMode | None = None,
    bits: Bits | None = None,
    dropout: DropoutMode = "stock",
) -> LeanConversion:
    """Make norms, dropout, activations and exact linear layers keep less for the backward pass, in place.

    Output, gradients and dropout masks are those of the stock model, to rounding: nothing is estimated, unless `bits`
    asks for it. Norms keep their input and one number per row; dropout and ReLU one bit per element; GELU, SiLU and their
    like their input. An exact linear layer after one of them keeps what they keep, and makes its own input again (see
    `recipes`). In a gated block `act(a) * b` keeps a and b.

    What a module is is found by what it does: torch's own `nn.LayerNorm`, `nn.Dropout`, `nn.Linear` (and the `Conv1D` of
    transformers) by class, RMS norms and activations of any library by asking them (see `probes`). All else stays stock;
    attention and the output layer with its loss do unless they are asked for. An embedding that is tied to a lean output
    layer adds its gradient to that layer's (see `wtacrs.integration.layers.lean.embedding`).

    Modules keep their identity, parameters, hooks and state-dict keys, and stay instances of their class. torch's random
    numbers are left alone: under one seed a lean model drops what the stock one drops. The stock path is taken in eval
    mode, without gradients and in compiled code, where the compiler decides what is kept. There is no second derivative.

    Combines with `approximate_` in either order; `restore_` undoes both. Layers with an estimated dW keep their sample,
    and recipes where they take the exact path.

    Args:
        model: any module, wrapped or not as in `approximate_`.
        filter_fn: called with each module that can be converted and its name, attention layers among them if `attention`
            is asked for; False leaves it stock. Default: all.
        attention: "keep" for models of transformers within that keep q, k, v and a bit per probability instead of the
            probabilities, "again" for those that keep what q, k, v are projected from (see
            `wtacrs.integration.layers.lean.attention`); None for stock ones.
        head: "forward" or "again" for output layers whose logits are never whole in training (see
            `wtacrs.integration.layers.lean.head`); None for stock ones.
        bits: 8 or 4 for activations and gated products that keep unbiased codes instead of their inputs, wherever these
            are fewer bytes (see `wtacrs.integration.layers.lean.codes`): the output stays exact, gradients of the layers
            below are right on average. None keeps the inputs. Codes are drawn as estimated layers draw (see
            `sampling_state`), by the context of the model, which gets one if it has none.
        dropout: "stock" for the masks of the stock model, "quick" for masks of the same law that are cheaper to draw.

    Returns:
        Names of the converted modules; `found` says what they are, `stays` why others stay stock.

    Raises:
        InputError: if nothing can be converted, or on another value of an option. The model is unchanged.

    >>> model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.1), nn.Linear(8, 2), nn.Tanh())
    >>> lean = lean_(model)
    >>> lean.found
    {'0': 'exact linear layer', '1': 'GELU', '2': 'dropout', '3': 'exact linear layer'}
    >>> lean.stays
    {'4': 'tanh: it keeps its output alone, which the next layer keeps too'}
    """
    options = LeanOptions(attention, head, bits, dropout)

    def options_of(module: nn.Module, name: str) -> LeanOptions | None:
        return options if filter_fn is None or filter_fn(module, name) else None

    return _lean(unwrapped(model), options_of, options)


def lean_by_block_(
    model: nn.Module, options: Mapping[str, LeanOptions], *, head: HeadMode | None = None
) -> LeanConversion:
    """`lean_` with options of their own for parts of a model; all other modules stay stock.

    Args:
        model: as in `lean_`.
        options: by name of a module, for all within it. Dropout must be the same in all.
        head: as in `lean_`; that of the options does not count.

    Returns:
        As `lean_`.

    Raises:
        InputError: as `lean_`, and where options differ in dropout. The model is unchanged.
    """
    model = unwrapped(model)
    given = list(options.values())
    whole = LeanOptions(None, head, None, common_dropout(given))

    def options_of(module: nn.Module, name: str) -> LeanOptions | None:
        parts = name.split(".")
        found = next((found for i in range(len(parts) + 1) if (found := options.get(".".join(parts[:i])))), None)
        # an embedding that is found lean is tied to the output layer
        of_head = head is not None and isinstance(module, nn.Embedding)
        return whole if found is None and of_head else found

    if not given:
        _undo(model.modules())
        heads = None if head is None else set_lean_head(model, mode=head)
        return LeanConversion(head=heads)
    attention = next((one.attention for one in given if one.attention is not None), None)
    return _lean(model, options_of, replace(whole, attention=attention))


def common_dropout(options: Iterable[LeanOptions]) -> DropoutMode:
    """Dropout of options for parts of a model, "stock" if there are none.

    Raises:
        InputError: if they differ: it is of the whole model.
    """
    found = {one.dropout for one in options}
    if len(found) > 1:
        raise InputError("options: dropout is of the whole model, and must not differ between its parts")
    return found.pop() if found else "stock"


def _lean(
    model: nn.Module,
    options_of: _OptionsOf,
    whole: LeanOptions,
) -> LeanConversion:
    """Convert each module by its own options, of which None leaves it stock, and the head by `whole`."""
    attention, head = whole.attention, whole.head
    found, stays, bits = _asked(model, options_of, whole)
    if not any(not is_linear_layer(module) and what.mixin is not LeanEmbedding for module, what in found.values()):
        raise InputError(
            f"model={type(model).__name__} has no norm, dropout or activation that can keep less"
            + "".join(f"; {name}: {reason}" for name, reason in [*stays.items()][:1])
        )
    _undo(model.modules())
    heads = None if head is None else set_lean_head(model, mode=head)
    parts = None if attention is None else _lean_attention(model, whole, options_of)
    for name, (module, _) in found.items():
        if own_class(module) is LeanHead:
            found[name] = module, _Found(LeanLinear, _OUTPUT_LAYER)
    _add_codes(model, found, bits)
    for module, what in found.values():
        if isinstance(module, EstimatedWeightGrad):
            module.lean = True
        elif own_class(module) is not LeanHead:
            assert what.mixin is not None
            make_lean(module, what.mixin, what.terms)
    remove_unused_context(model)
    names = {name: what.what for name, (_, what) in found.items()}
    return LeanConversion(names, stays, attention=parts, head=heads)


def _asked(
    model: nn.Module, options_of: _OptionsOf, whole: LeanOptions
) -> tuple[dict[str, tuple[nn.Module, _Found]], dict[str, str], dict[str, Bits | None]]:
    """What can be lean, what stays stock and why, and the bits of what can; nothing is changed."""
    gates, tied = _gating(model.modules()), _output_weights(model, whole)
    found: dict[str, tuple[nn.Module, _Found]] = {}
    stays: dict[str, str] = {}
    bits: dict[str, Bits | None] = {}
    for name, module in model.named_modules():
        is_asked = not module._modules or is_linear_layer(module)
        if not is_asked:
            continue
        what = _found(module, gates, tied, whole)
        its_own = None if what.mixin is None else options_of(module, name)
        if what.mixin is None:
            stays[name] = what.what
        elif its_own is None:
            stays[name] = "left out by the filter"
        else:
            found[name] = module, what
            bits[name] = its_own.bits
    return found, stays, bits


def lean_ahead(model: nn.Module, options: LeanOptions) -> LeanConversion:
    """What `lean_` would do with these options, and would leave as it is; nothing is changed.

    Args:
        model: as in `lean_`, lean or not.
        options: of `lean_`.

    Returns:
        What `lean_` returns; empty for a model in which it finds nothing.
    """

    def options_of(_module: nn.Module, _name: str) -> LeanOptions:
        return options

    model = unwrapped(model)
    found, stays, _ = _asked(model, options_of, options)
    heads, stock_heads = heads_ahead(model, undone=True)
    names = {}
    for name, (module, what) in found.items():
        described = what.terms.describe(options.bits) if isinstance(what.terms, Terms) else what.what
        is_head = own_class(module) is LeanHead or (options.head is not None and name in heads)
        names[name] = _OUTPUT_LAYER if is_head else described
    parts = None
    if options.attention is not None:
        from wtacrs.integration.layers.lean.attention import attention_ahead  # needs transformers

        parts = attention_ahead(model)[1]
    return LeanConversion(names, stays, attention=parts, head=None if options.head is None else stock_heads)


def _add_codes(
    model: nn.Module, found: dict[str, tuple[nn.Module, _Found]], bits: Mapping[str, Bits | None]
) -> None:
    """Let activations that keep their input know what they need for codes, those that are to have any."""
    coded = {
        name: (module, what.terms, its_bits)
        for name, (module, what) in found.items()
        if isinstance(what.terms, Terms) and ACTIVATIONS[what.terms.name].keeps_input and (its_bits := bits[name])
    }
    if not coded:
        return
    context = ForwardContext.of(model) or ForwardContext(model)
    for name, (module, terms, its_bits) in coded.items():
        terms = terms._replace(codes=Codes(its_bits, context, name, Asked()))
        found[name] = module, _Found(LeanActivation, terms.describe(), terms)


def remove_unused_context(model: nn.Module) -> None:
    """Take the context off a model of which no module draws any more."""
    context = ForwardContext.of(model)
    if context is not None and not any(_draws(module) for module in model.modules()):
        context.remove()


def _draws(module: nn.Module) -> bool:
    if isinstance(module, LeanActivation):
        return module.lean_terms.codes is not None
    return isinstance(module, EstimatedWeightGrad | LeanHead) and module.estimator is not None


def _lean_attention(model: nn.Module, whole: LeanOptions, options_of: _OptionsOf) -> dict[str, str]:
    from wtacrs.integration.layers.lean.attention import is_attention, set_lean_attention  # needs transformers

    def mode_of(module: nn.Module, name: str) -> AttentionMode | None:
        its_own = options_of(module, name)
        return None if its_own is None else its_own.attention

    assert whole.attention is not None
    reasons = set_lean_attention(
        model,
        mode=whole.attention,
        quick=whole.dropout == "quick",
        filter_fn=lambda module, name: mode_of(module, name) is not None,
    )
    for name, module in model.named_modules():
        if is_attention(module) and (mode := mode_of(module, name)) is not None and name not in reasons:
            module.lean_attention = mode
    return reasons


def restore_lean_attention(model: nn.Module) -> None:
    """Make the attention of a model stock, as far as it is lean."""
    attention = sys.modules.get(
        f"{__package__}.attention"
    )  # needs transformers; nothing is lean before it is loaded
    if attention is not None:
        attention.restore_attention(model)


def restore_lean(module: nn.Module) -> bool:
    """Make one module stock as far as it is lean; whether it was."""
    if isinstance(module, LeanModule):
        make_unlean(module)
        return True
    return isinstance(module, EstimatedWeightGrad) and module.__dict__.pop("lean", False)


def make_lean_layer(layer: nn.Module) -> None:
    """Make an exact linear layer lean."""
    make_lean(layer, LeanLinear if issubclass(stock_class(layer), nn.Linear) else LeanConv1D)


def _undo(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        restore_lean(module)


def _found(module: nn.Module, gates: set[nn.Module], tied: set[int], options: LeanOptions) -> _Found:
    if "forward" in vars(module):
        return _Found(None, "its forward is replaced on the instance")
    if is_parametrized(module):
        return _Found(None, "parametrized: its tensors are computed anew at every access")
    if is_linear_layer(module):
        return _linear(module)
    kind = stock_class(module)
    if kind is nn.LayerNorm:
        return _Found(LeanLayerNorm, "LayerNorm")
    if kind is nn.Dropout:
        if vars(module).get("inplace"):
            return _Found(None, "dropout in place")
        what = "dropout, quick masks" if options.dropout == "quick" else "dropout"
        return _Found(LeanDropout, what, options.dropout)
    if kind is nn.Embedding and id(module._parameters["weight"]) in tied and not unfit_embedding(module):
        return _Found(LeanEmbedding, "look-up, tied to the output layer")
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return _Found(None, "a look-up: it keeps ids")
    if module._parameters:
        norm, reason = rms_terms(module)
        if norm is None:
            return _Found(None, _subclass_reason(module) or _no_norm_reason(module, reason))
        return _Found(LeanRMSNorm, norm.describe(), norm)
    name, reason = activation_name(module)
    if name is None:
        return _Found(None, _subclass_reason(module) or reason)
    terms = Terms(name, module in gates and ACTIVATIONS[name].keeps_input)
    return _Found(LeanActivation, terms.describe(), terms)


def _output_weights(model: nn.Module, options: LeanOptions) -> set[int]:
    """Identities of the weights of output layers that are to be lean."""
    if options.head is None:
        return set()
    heads = output_layers(model).values()
    found = [head for head in heads if stays_stock(head) is None or isinstance(head, LeanLinear)]
    return {id(head._parameters["weight"]) for head in found}


def _linear(module: nn.Module) -> _Found:
    reason = unfit(module)
    if isinstance(module, EstimatedWeightGrad):
        return (
            _Found(None, reason) if reason else _Found(LeanLinear, "linear layer, exact where it does not sample")
        )
    kind = nn.Linear if own_class(module) is LeanHead else stock_class(module)
    if kind not in (nn.Linear, conv1d_class()):
        return _Found(None, "a subclass of a linear layer, whose own forward would be lost")
    if reason:
        return _Found(None, reason)
    return _Found(LeanLinear if kind is nn.Linear else LeanConv1D, "exact linear layer")


def _subclass_reason(module: nn.Module) -> str | None:
    """Why a module stays stock that is almost one with a lean piece."""
    kind = stock_class(module)
    base = next((base for base in (nn.LayerNorm, nn.Dropout) if issubclass(kind, base)), None)
    return None if base is None else f"a subclass of nn.{base.__name__}, whose own forward would be lost"


def _no_norm_reason(module: nn.Module, reason: str) -> str:
    kind = stock_class(module)
    if not _is_vector(module):
        return "no lean piece"
    if kind.__module__.startswith("torch.nn."):
        return f"no lean piece for {kind.__name__}"
    return f"no lean piece: {reason}"


def _is_vector(module: nn.Module) -> bool:
    return all(parameter is None or parameter.ndim == 1 for parameter in module._parameters.values())


def _gating(modules: Iterable[nn.Module]) -> set[nn.Module]:
    """Activations in a block with two linear layers as wide as a third one's input (or one twice as wide).

    Only there is it worth looking out for a product; what is found is no promise that there is one.
    """
    found: set[nn.Module] = set()
    for module in modules:
        shapes = [
            _shape(child) for child in module._modules.values() if child is not None and is_linear_layer(child)
        ]
        known = [shape for shape in shapes if shape is not None]
        outputs = [m for m, _ in known]
        others = [outputs[:place] + outputs[place + 1 :] for place in range(len(outputs))]
        reads = zip(others, known, strict=True)
        if any(written.count(d) >= 2 or 2 * d in written for written, (_, d) in reads):
            found |= {child for child in module._modules.values() if child is not None and not child._parameters}
    return found


def _shape(layer: nn.Module) -> tuple[int, int] | None:
    weight = layer._parameters.get("weight")
    if weight is None or weight.ndim != 2:
        return None
    m, d = weight.shape
    return (m, d) if isinstance(layer, nn.Linear) else (d, m)
