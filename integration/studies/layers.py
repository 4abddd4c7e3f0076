"""Models opened by name and looked at: which of their layers are estimated, and what `lean_` makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from torch import Tensor, nn

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.layers.convert import conversion_ahead
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.linear_layers import filter_of
from wtacrs.integration.measure.coverage import Coverage, coverage
from wtacrs.integration.measure.lean_coverage import LeanCoverage, lean_coverage
from wtacrs.integration.models.loading import is_text_to_text, model_name, task_tokenizer
from wtacrs.integration.models.lora import add_lora, require_peft
from wtacrs.integration.models.opening import Subject, check_model, open_model
from wtacrs.integration.models.small_models import NEW_MODELS
from wtacrs.integration.tasks.batches import require_examples, task_batches
from wtacrs.validation.seeds import checked_seed


class Opened(NamedTuple):
    """A model and one batch of a task.

    Attributes:
        title: its name.
        model: itself, with adapters if they were asked for.
        batch: keyword arguments of a forward pass.
    """

    title: str
    model: nn.Module
    batch: dict[str, Tensor]


def coverage_study(
    models: Sequence[str],
    subject: Subject,
    *,
    lora: int | None,
    layers: Sequence[str] | None,
    batch_size: int,
    max_length: int,
    seed: int,
    min_rows: int = 0,
) -> Iterator[tuple[str, list[Coverage]]]:
    """A model's name and its coverage in one batch of the task, one model after the other.

    Args:
        models: as `open_model` takes them; none for the small T5 and all of `NEW_MODELS`.
        subject: its task decides the heads, and gives the batch; its model is not looked at.
        lora: rank of adapters of peft on all linear layers; None for none.
        layers: patterns of the names of the layers to convert; None for all.
        batch_size: examples.
        max_length: tokens of the longest input.
        seed: of weights and batch.
        min_rows: as in `approximate_`.

    Raises:
        InputError: on anything that cannot be loaded or used.
    """
    for title, model, batch in _opened(
        models, subject, lora=lora, batch_size=batch_size, max_length=max_length, seed=seed
    ):
        chosen = filter_of(model, layers)
        warning = conversion_ahead(model, chosen).warning
        if warning is not None:
            warnings.warn(f"{title}: {warning}", WtacrsWarning, stacklevel=2)
        yield title, coverage(model, batch, filter_fn=chosen, min_rows=min_rows)


def lean_study(
    models: Sequence[str],
    lean: str,
    subject: Subject,
    *,
    lora: int | None,
    batch_size: int,
    max_length: int,
    seed: int,
) -> Iterator[tuple[str, list[LeanCoverage]]]:
    """A model's name and what `lean_` would do with it, one model after the other.

    Args:
        models: as in `coverage_study`, as all others below.
        lean: words of `LeanOptions`.
        subject: its task decides the heads.
        lora: rank of adapters.
        batch_size: examples.
        max_length: tokens of the longest input.
        seed: of weights.

    Raises:
        InputError: as `coverage_study`, and on unknown words.
    """
    options = LeanOptions.parse(lean, "--lean")
    for title, model, _ in _opened(
        models, subject, lora=lora, batch_size=batch_size, max_length=max_length, seed=seed
    ):
        yield title, lean_coverage(model, options)


def _opened(
    models: Sequence[str],
    subject: Subject,
    *,
    lora: int | None,
    batch_size: int,
    max_length: int,
    seed: int,
) -> Iterator[Opened]:
    seed = checked_seed(seed)
    chosen: list[str | None] = list(models) if models else [None, *NEW_MODELS]
    for name in chosen:
        check_model(name, None, free_text=subject.writes_text)
    if lora is not None:
        if lora < 1:
            raise InputError(f"--lora-rank {lora} must be at least 1")
        require_peft()
    task = subject.load(needs_dev=False)
    require_examples(task, 1, batch_size)
    vocabulary = cache(
        lambda task: task_tokenizer(task)
    )  # one for all new models: to train it takes most of the time
    for name in chosen:
        model, tokenizer = open_model(name, None, task, seed, new_vocabulary=vocabulary)
        title = model_name(model)
        options = {"batches": 1, "batch_size": batch_size, "max_length": max_length, "seed": seed}
        (batch,) = task_batches(task, tokenizer, text_to_text=is_text_to_text(model), **options)
        yield Opened(title, model if lora is None else add_lora(model, lora, seed=seed), batch)
