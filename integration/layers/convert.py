"""`approximate_` and `restore_`: swap the linear layers of a model in place, and back."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from weakref import ref

from torch import nn

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.estimators.core.mask_floor import MASK_FLOOR
from wtacrs.estimators.rows.row_estimator import RowEstimator
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.mask_watch import MaskedGradient, check_masked_gradient
from wtacrs.integration.context.peft_names import reads_rank
from wtacrs.integration.context.streams import usual_stream
from wtacrs.integration.layers.checkpointed import restore_checkpointed
from wtacrs.integration.layers.choice import EstimatorChoice, estimator_by_layer, left_out
from wtacrs.integration.layers.conversion import Conversion, Part, parts_of, reasons_of, warning_of
from wtacrs.integration.layers.dynamic_classes import own_class, set_class
from wtacrs.integration.layers.estimated_weight_grad import (
    MIN_ELEMENTS,
    EstimatedWeightGrad,
    check_mask_floor,
    checked_budget_of,
    make_stock,
)
from wtacrs.integration.layers.lean.convert import (
    LeanConversion,
    lean_,
    make_lean_layer,
    remove_unused_context,
    restore_lean,
    restore_lean_attention,
)
from wtacrs.integration.layers.lean.head import LeanHead, restore_head, takes
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.least_elements import checked_min_elements, checked_min_rows
from wtacrs.integration.layers.linear_layers import FilterFn, asked_once, linear_layer_names
from wtacrs.integration.layers.planned import check_choices, checkpoint_planned_, estimators_of, lean_planned_
from wtacrs.integration.layers.unused_layers import exact_after_all
from wtacrs.integration.layers.verdicts import converted_class, unfit
from wtacrs.integration.parallel.wrappers import replicated, unwrapped
from wtacrs.integration.score_memory.gradient_norms import GradientNorms
from wtacrs.integration.score_memory.kinds import make_gradient_norms
from wtacrs.validation.arguments import check_callable, check_flag
from wtacrs.validation.records.plan import BlockChoices, Plan
from wtacrs.validation.seeds import checked_seed


def approximate_(
    model: nn.Module,
    estimator: EstimatorChoice | Plan | BlockChoices,
    *,
    filter_fn: FilterFn | None = None,
    min_elements: int = MIN_ELEMENTS,
    min_rows: int = 0,
    scores: str | GradientNorms = "row-norms",
    share_inputs: bool = True,
    seed: int | None = None,
    mask_floor: float = MASK_FLOOR,
    budget_of: str = "all-rows",
    masked_gradient: MaskedGradient | None = None,
    lean: bool | str | LeanOptions = False,
) -> Conversion:
    """Turn every linear layer of a model into one with an estimated dW, in place.

    `nn.Linear` becomes `ApproxLinear`, and the `Conv1D` of transformers (GPT-2) becomes `ApproxConv1D`. Modules keep
    their identity, parameters, hooks and state-dict keys: optimizers built before stay valid and checkpoints load into
    the stock model. Layers that are converted already get the new estimator.

    Hooks on `model` tell the layers which rows a mask calls padding (see `ForwardContext`). That is a hint: such rows
    keep a share of the budget, so that estimates are unbiased whatever the mask says, and a layer whose backward pass
    finds gradient there uses no mask from the next forward pass on (see `MaskWatch`).

    torch's random numbers are left alone: dropout is that of the stock model, bit by bit. Layers draw by a seed of their
    own and a count of forward passes (see `sampling_state`, which resumes them).

    An output layer that is lean (see `wtacrs.integration.layers.lean.head`) samples the rows of dW if the estimator draws
    rows, and stays exact with others.

    Left exact are subclasses of the two, whose own `forward` would be lost, lazy layers, complex weights, layers with a
    parametrization (`torch.nn.utils.parametrize`) and matrices that no linear layer holds. What is returned says so of
    each, and a `WtacrsWarning` where that is most of the linear work, or where no converted layer trains.

    LoRA of peft: convert the model that `get_peft_model` returns, and A of every adapter, which reads the wide input, is
    estimated. B stays exact unless `filter_fn` says otherwise: what it reads is r numbers wide. Base layers are frozen
    and keep nothing, converted or not; converted before `get_peft_model`, they stay so, and their adapters are stock
    layers until `approximate_` is called again. Where A is frozen too (LoRA-FA), nothing of the wide input is kept.

    A model may be converted before or after `DistributedDataParallel`, `torch.distributed.fsdp.fully_shard`, or
    `DataParallel` on one device; names are those within the wrapper. Every process draws rows of its own, even if all
    have been seeded alike.

    `torch.compile` takes the step into one graph, and a second one once lengths vary. Compiled layers draw from torch's
    default generator (seed it differently in every process), and nothing watches their masks. With `dynamic=True` floats
    such as a budget must not become symbols (`torch._dynamo.config.specialize_float = True`).

    Args:
        model: any module; may itself be an `nn.Linear`.
        estimator: a spec such as `"wta_crs(budget=0.3)"` or an `Estimator`; or a mapping of patterns of layers' names
            (`*`, `?`, `[]`) to either. The first pattern that a name fits counts. Layers that fit none, or one with
            `"exact"`, are stock afterwards, whatever they were before.
        filter_fn: called with each layer (`nn.Linear` or `Conv1D`) and its name; False leaves it as it is, and no pattern
            names it. Default: all but B of adapters.
        min_elements: inputs with fewer numbers than this take the exact path (see `EstimatedWeightGrad`).
        min_rows: inputs with fewer rows than this take the exact path too, and are kept whole: an estimate of a product
            of few rows may take longer than the product (`dithered_rows` gains from 512 rows, `wtacrs bench` measures).
            `coverage` and `wtacrs layers --min-rows` say which layers that leaves exact.
        scores: what rows are sampled by: "row-norms", or these times what is known of gradient norms: "last-seen"
            (`LastSeenNorms`), averages "by-token" (`TokenNorms`) or "by-position" (`PositionNorms`), or what is "learned"
            to follow from the row itself (`LearnedNorms`); or such an object.
        share_inputs: whether layers that read the very same tensor in one forward pass keep one copy (see
            `SharedInputs`). The estimates stay unbiased and the sum of their variances the same; errors of layers that
            share are dependent. Compiled layers do not share.
        seed: of the layers' random numbers, from 0; None for `torch.initial_seed()`. A model that is converted already
            goes on with its own unless there is a number.
        mask_floor: δ in (0, 1): the share that rows called padding keep of the budget (see `scores_with_floor`); where
            the mask is right, the second moment grows by at most 1/(1 − δ).
        budget_of: what a budget or slots that are shares are shares of. "live-rows" are those that no mask calls padding,
            of positive score: bytes and products fall by the share of padding, and the variance is that of the same
            batch without padding, up to 1/(1 − δ): larger, since with "all-rows" padding lends its share to live rows.
            The number kept is a size of tensors, so rows are counted where that waits for no device: on the CPU, and
            elsewhere if the mask is on the CPU (`ForwardContext.given`). Else all count as live, which is said once,
            except in compiled code. No effect on numbers of rows, ranks, a budget of 1.0, which stays exact, estimators
            that do not go by scores, and lean output layers, whose budget is a share of the rows with a label anyway.
        masked_gradient: what happens where such rows carry gradient: "warn" (the default) stops the use of the mask in
            that layer and says so once, "raise" raises `InputError` in the backward pass, "ignore" does not look.
        lean: whether the modules around the layers keep less too (see `lean_`, which can also be called before or after),
            with `LeanOptions` or their words, such as "attention,head"; False leaves them as they are.

    Returns:
        Names of the converted layers, in the order of `model.named_modules()`; its attribute `exact` has the reasons of
        all others, and `lean` what `lean_` returned, if it was called.

    Raises:
        InputError: if a spec or the scores are unusable, if nothing can be converted, if a pattern fits no such layer
            (with "exact", no linear layer), or if a layer's `forward` was replaced on the instance (by an offloading
            hook, say), which would bypass the conversion, if `DataParallel` replicates the model over several devices, or
            if an argument is not of the type that is said here. The model is unchanged.

    Warns:
        WtacrsWarning: once, in one line, as said above.

    >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> approximate_(model, "wta_crs(budget=0.3)", filter_fn=lambda layer, name: layer.out_features > 2)
    ['0']
    >>> approximate_(model, {"0": "exact", "*": "crs(budget=0.5)"})
    ['2']
    >>> restore_(model)
    ['2']
    """
    seed = None if seed is None else checked_seed(seed)
    check_mask_floor(mask_floor)
    budget_of = checked_budget_of(budget_of)
    if masked_gradient is not None:
        check_masked_gradient(masked_gradient)
    check_flag(share_inputs, "share_inputs")
    options = LeanOptions.of(lean)
    check_callable(filter_fn, "filter_fn", takes="a layer and its name")
    min_elements, min_rows = checked_min_elements(min_elements), checked_min_rows(min_rows)
    _refuse_replicas(model)
    model = unwrapped(model)
    planned: BlockChoices | None = None
    if isinstance(estimator, (Plan, BlockChoices)):
        planned = estimator.does if isinstance(estimator, Plan) else estimator
        _check_alone(filter_fn, lean)
        check_choices(planned, model)
        estimator = estimators_of(planned)
    filter_fn = None if filter_fn is None else asked_once(filter_fn)
    modules = _convertible(model, filter_fn)
    others = [name for name in linear_layer_names(model) if name not in modules]
    chosen = estimator_by_layer(estimator, list(modules), others)
    norms = make_gradient_norms(scores)
    if not modules:
        raise InputError(
            f"model={type(model).__name__} has no linear layer "
            + ("that filter_fn accepts" if filter_fn is not None else "to convert")
            + _first_reason(parts_of(model, filter_fn))
        )
    wanted = {name: found for name, found in chosen.items() if found is not None}
    _refuse_replaced_forwards({name: modules[name] for name in wanted})
    if norms is not None:
        norms.attach(model)
    for name, module in modules.items():
        if name not in wanted and isinstance(module, EstimatedWeightGrad):
            _make_stock(module)
    _make_unfit_stock(model)
    if planned is not None:
        neighbours = lean_planned_(model, planned)
        checkpoint_planned_(model, planned)
    else:
        neighbours = None if options is None else lean_(model, **options.arguments())
    wanted = {name: found for name, found in wanted.items() if takes(modules[name], found)}
    for name, module in modules.items():
        if name not in wanted and isinstance(module, LeanHead):
            module.estimator = None
    if not wanted:
        remove_unused_context(model)
        return _conversion(model, wanted, filter_fn, estimator, neighbours)
    inside = [found for module in model.modules() if (found := ForwardContext.of(module)) is not None]
    context = _context(model, seed, masked_gradient)
    for name, its_own in wanted.items():
        layer = modules[name]
        if isinstance(layer, LeanHead) and isinstance(its_own, RowEstimator):
            layer.estimator, layer.path, layer.context = its_own, name, context
            layer.min_elements, layer.min_rows = min_elements, min_rows
            continue
        kind = converted_class(layer)
        assert kind is not None
        if own_class(layer) is not kind:
            was_lean = restore_lean(layer)
            set_class(layer, kind)
            layer.__dict__.update({"lean": True} if was_lean else {})
        assert isinstance(layer, EstimatedWeightGrad)
        layer.estimator = its_own
        layer.min_elements, layer.min_rows = min_elements, min_rows
        layer.share_inputs, layer.mask_floor = share_inputs, mask_floor
        layer.budget_of = budget_of
        layer.gradient_norms = norms
        known = layer.context
        if known is None or known in inside or not known.hooked:  # else an enclosing model was converted first
            layer.context = known = context
            layer.usual_stream, layer.path = usual_stream(model, layer), name
        known.score_memory = norms
    told = {str(modules[name].path) for name in wanted if _has_gradient(modules[name])}
    context.after_first_backward = partial(_tell_exact_after_all, ref(model), told)
    conversion = _conversion(model, wanted, filter_fn, estimator, neighbours)
    if conversion.warning is not None:
        warnings.warn(conversion.warning, WtacrsWarning, stacklevel=2)
    return conversion


def _check_alone(filter_fn: FilterFn | None, lean: bool | str | LeanOptions) -> None:
    """Refuse what a plan says already."""
    for name, value, default in (("filter_fn", filter_fn, None), ("lean", lean, False)):
        if value is not default:
            raise InputError(f"{name}={value!r}: a plan says it of every block; leave it out")


def conversion_ahead(model: nn.Module, filter_fn: FilterFn | None = None) -> Conversion:
    """What `approximate_` would return for a stock model and one estimator; the model is left as it is."""
    model = unwrapped(model)
    parts = parts_of(model, filter_fn)
    names = list(_convertible(model, filter_fn))
    return Conversion(names, reasons_of(parts), warning_of(parts, len(names)))


def _conversion(
    model: nn.Module,
    wanted: Collection[str],
    filter_fn: FilterFn | None,
    estimator: EstimatorChoice,
    lean: LeanConversion | None,
) -> Conversion:
    parts = parts_of(model, filter_fn, lambda name: left_out(estimator, name))
    return Conversion(wanted, reasons_of(parts), warning_of(parts, len(wanted)), lean)


def _context(model: nn.Module, seed: int | None, masked_gradient: MaskedGradient | None) -> ForwardContext:
    """The context of a model, a new one if it has none, with what is given."""
    context = ForwardContext.of(model)
    if context is None:
        context = ForwardContext(model, seed=seed)
    else:
        context.hook_inside(model)
    if seed is not None:
        context.draws.load_state_dict({"seed": seed, "passes": 0})
    if masked_gradient is not None:
        context.watch.on_gradient = masked_gradient
    return context


def _tell_exact_after_all(model: ref[nn.Module], before: Collection[str]) -> None:
    """Warn of layers whose weight others read directly, which only a backward pass shows.

    Args:
        model: converted.
        before: layers that had a gradient when they were converted, of which it says nothing.
    """
    living = model()
    names = [] if living is None else exact_after_all(living, {*_called(living), *before})
    if names:
        layers = "1 converted layer was" if len(names) == 1 else f"{len(names)} converted layers were"
        warnings.warn(
            f"{layers} not called, and the weight has a gradient all the same, of another module or of the loss that "
            f"reads it: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}; that part is exact and saves nothing",
            WtacrsWarning,
            stacklevel=2,
        )


def _called(model: nn.Module) -> set[str]:
    return {m.path for m in model.modules() if isinstance(m, EstimatedWeightGrad) and m.called}


def _has_gradient(layer: nn.Module) -> bool:
    weight = layer._parameters.get("weight")
    return weight is not None and weight.grad is not None


def _convertible(model: nn.Module, filter_fn: FilterFn | None) -> dict[str, nn.Module]:
    """Layers by name that can be converted, converted ones among them, and that the filter accepts."""
    return {
        name: module
        for name, module in model.named_modules()
        if (converted_class(module) is not None or isinstance(module, LeanHead))
        and (not reads_rank(name) if filter_fn is None else filter_fn(module, name))
    }


def _refuse_replicas(model: nn.Module) -> None:
    devices = replicated(model)
    if devices > 1:
        raise InputError(
            f"model={type(model).__name__} over {devices} devices: its replicas are no layers of the model; "
            "give it one device, or start one process per device with torchrun"
        )


def _first_reason(parts: Sequence[Part]) -> str:
    """Why the first linear layer or matrix of a model stays exact, if there is any."""
    reasons = reasons_of(parts)
    return "".join(f"; {name}: {reason}" for name, reason in [*reasons.items()][:1])


def _refuse_replaced_forwards(layers: Mapping[str, nn.Module]) -> None:
    replaced = [name for name, layer in layers.items() if "forward" in vars(layer)]
    if replaced:
        raise InputError(
            f"layer {replaced[0]!r} has a forward of its own (an offloading hook?) which would bypass "
            "the conversion; convert before hooks are installed, or leave it out with filter_fn"
        )


def restore_(model: nn.Module, *, keep_lean: bool = False) -> list[str]:
    """Turn every module that `approximate_`, a plan or `lean_` has converted back into what it was, exactly.

    Args:
        model: any module, wrapped or not as in `approximate_`.
        keep_lean: whether to undo `approximate_` alone.

    Returns:
        Names of the restored modules; empty if none was converted.

    Raises:
        InputError: if the model is no `nn.Module`.
    """
    restored = []
    for name, module in unwrapped(model).named_modules():
        if not keep_lean:
            ForwardContext.leave(module)
        was_lean = not keep_lean and restore_lean(module)
        was_checkpointed = not keep_lean and restore_checkpointed(module)
        if isinstance(module, EstimatedWeightGrad):
            _make_stock(module)
            restored.append(name)
        elif keep_lean and isinstance(module, LeanHead) and module.estimator is not None:
            module.estimator = None
            restored.append(name)
        elif was_lean or was_checkpointed:
            restored.append(name)
    if keep_lean:
        for module in unwrapped(model).modules():
            remove_unused_context(module)
        return restored
    restored += restore_head(model)
    restore_lean_attention(model)
    return restored


def _make_stock(layer: EstimatedWeightGrad) -> None:
    """Give up the estimate; a lean layer stays lean."""
    was_lean = restore_lean(layer)
    make_stock(layer)
    if was_lean:
        make_lean_layer(layer)


def _make_unfit_stock(model: nn.Module) -> None:
    """Give up layers that can no longer be estimated: parametrized, or made complex, since they were converted."""
    for module in model.modules():
        if isinstance(module, EstimatedWeightGrad) and unfit(module) is not None:
            restore_lean(module)
            _make_stock(module)
