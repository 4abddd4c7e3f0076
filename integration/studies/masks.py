"""Right, wrong and opposite masks in many architectures: is the mean gradient exact, and which masks stay in use?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from wtacrs.estimators import InputError, make, spec
from wtacrs.estimators.core.mask_floor import MASK_FLOOR
from wtacrs.figures.plots import masks
from wtacrs.integration.measure.mask_effect import mask_effect
from wtacrs.integration.models.architectures import (
    ARCHITECTURES,
    PAD,
    TOKENS,
    VOCABULARY,
    Side,
    padded_batch,
    tiny_model,
)
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.validation.patterns import check_patterns, fits
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.masks import CONDITIONS, SIDES, Condition, MaskRow, MasksResult
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Runner, Task, TaskOutput, code_mark, generator_for

DEFAULT_ESTIMATOR = "wta_crs(budget=0.3)"


def masks_study(
    out: Path,
    *,
    architectures: Sequence[str] | None = None,
    estimator: str = DEFAULT_ESTIMATOR,
    mask_floor: float = MASK_FLOOR,
    seed: int = 0,
    runner: Runner | None = None,
) -> MasksResult:
    """Every architecture under every mask, padded right and left: `masks.json` and `masks.png`.

    Args:
        out: folder of the result.
        architectures: patterns of names in `ARCHITECTURES`; None for all.
        estimator: with a closed form of its mean.
        mask_floor: as in `approximate_`.
        seed: of weights, batches, masks and dropout.
        runner: processes, resumption and progress.

    Raises:
        InputError: on an unusable estimator or a pattern that fits none.
    """
    made = make(estimator)
    check_patterns(architectures or [], list(ARCHITECTURES), what="architectures", argument="architecture")
    chosen = [name for name in ARCHITECTURES if architectures is None or fits(name, architectures)]
    runner = Runner() if runner is None else runner
    tasks = [
        Task(
            key=f"masks {name} {side} {spec(made)}{code_mark([made])} {mask_floor} {seed}",
            work=architecture_rows,
            arguments=(name, side, spec(made), mask_floor, seed),
            label=f"{name}, {side}",
        )
        for name in chosen
        for side in SIDES
    ]
    rows = runner.run(MaskRow, tasks)
    result = MasksResult(
        stamp=stamp(seed=seed, inputs={"architectures": ", ".join(chosen)}),
        estimator=spec(made),
        mask_floor=mask_floor,
        rows=rows,
    )
    write_result(out / "masks.json", result)
    runner.forget()
    draw_or_remove(partial(masks.draw, result), out / "masks.png")
    return result


def architecture_rows(name: str, side: Side, estimator: str, mask_floor: float, seed: int) -> TaskOutput[MaskRow]:
    """One architecture under every mask."""
    rows = (_row(name, side, condition, estimator, mask_floor, seed) for condition in CONDITIONS)
    return TaskOutput(tuple(rows))


def _row(name: str, side: Side, condition: Condition, estimator: str, mask_floor: float, seed: int) -> MaskRow:
    model = tiny_model(name, seed=seed)
    batch, right = padded_batch(name, side, seed=seed)
    # FNet takes no mask at all
    right = {
        argument: mask
        for argument, mask in right.items()
        if argument in inspect.signature(model.forward).parameters
    }
    generator = generator_for(seed, f"{name} {side} {condition}")
    given = {**batch, **_masks(right, condition, generator)}
    source = None
    if condition == "unrelated":
        source = _random((len(next(iter(batch.values()))), TOKENS), generator).bool()
    row = MaskRow(architecture=name, model=ARCHITECTURES[name].model, condition=condition, side=side)
    try:
        reads = _reads_padding(model, given, seed)
        effect = mask_effect(model, given, make(estimator), source=source, mask_floor=mask_floor, seed=seed)
    except InputError as error:
        if str(error).startswith("estimator"):
            raise
        return row.model_copy(update={"failed": str(error).partition(": ")[2]})
    return row.model_copy(update={"reads_padding": reads, **vars(effect)})


def _masks(right: Mapping[str, Tensor], condition: Condition, generator: torch.Generator) -> dict[str, Tensor]:
    if condition == "none":
        return {}
    change: dict[Condition, Callable[[Tensor], Tensor]] = {
        "random": lambda mask: _random(mask.shape, generator),
        "opposite": lambda mask: 1 - mask,
    }
    return {argument: change.get(condition, Tensor.clone)(mask) for argument, mask in right.items()}


def _random(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Half of the positions, and the first of every sequence or not, as it falls."""
    return torch.randint(2, tuple(shape), generator=generator)


def _reads_padding(model: nn.Module, given: Mapping[str, Tensor], seed: int) -> bool:
    """Whether the loss changes with the embeddings of pad tokens."""
    losses = []
    for size in (0.0, 1.0):
        with torch.random.fork_rng(), _embeddings_moved(model, size), torch.no_grad():
            torch.manual_seed(seed)
            losses.append(float(model(**given).loss))
    return losses[0] != losses[1]


@contextmanager
def _embeddings_moved(model: nn.Module, size: float) -> Iterator[None]:
    """The embeddings of pad tokens, changed by so much."""
    ramp = torch.linspace(-size, size, 7)

    def move(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        noise = ramp.repeat(output.shape[-1])[: output.shape[-1]].to(output.dtype)
        return output + (args[0] == PAD)[..., None] * noise

    tokens = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == VOCABULARY]
    handles = [module.register_forward_hook(move) for module in tokens]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
