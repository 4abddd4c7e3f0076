"""Models opened by name and looked at: which of their layers are estimated."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.layers.convert import conversion_ahead
from wtacrs.integration.layers.linear_layers import filter_of
from wtacrs.integration.measure.coverage import Coverage, coverage
from wtacrs.integration.models.loading import is_text_to_text, model_name, task_tokenizer
from wtacrs.integration.models.lora import add_lora, require_peft
from wtacrs.integration.models.opening import check_model, open_model
from wtacrs.integration.models.small_models import NEW_MODELS
from wtacrs.integration.tasks.batches import require_examples, task_batches
from wtacrs.integration.tasks.loading import load_task
from wtacrs.validation.seeds import checked_seed


def coverage_study(
    models: Sequence[str],
    task_name: str,
    data: Path | None,
    *,
    lora: int | None,
    layers: Sequence[str] | None,
    batch_size: int,
    max_length: int,
    seed: int,
) -> Iterator[tuple[str, list[Coverage]]]:
    """A model's name and its coverage in one batch of the task, one model after the other.

    Args:
        models: as `open_model` takes them; none for the small T5 and all of `NEW_MODELS`.
        task_name: decides the heads, and gives the batch.
        data: as in `load_task`.
        lora: rank of adapters of peft on all linear layers; None for none.
        layers: patterns of the names of the layers to convert; None for all.
        batch_size: examples.
        max_length: tokens of the longest input.
        seed: of weights and batch.

    Raises:
        InputError: on anything that cannot be loaded or used.
    """
    seed = checked_seed(seed)
    chosen: list[str | None] = list(models) if models else [None, *NEW_MODELS]
    for name in chosen:
        check_model(name, None)
    if lora is not None:
        if lora < 1:
            raise InputError(f"--lora-rank {lora} must be at least 1")
        require_peft()
    task = load_task(task_name, data=data)
    require_examples(task, 1, batch_size)
    vocabulary = cache(
        lambda task: task_tokenizer(task)
    )  # one for all new models: to train it takes most of the time
    for name in chosen:
        model, tokenizer = open_model(name, None, task, seed, new_vocabulary=vocabulary)
        title = model_name(model)
        options = {"batches": 1, "batch_size": batch_size, "max_length": max_length, "seed": seed}
        (batch,) = task_batches(task, tokenizer, text_to_text=is_text_to_text(model), **options)
        adapted = model if lora is None else add_lora(model, lora, seed=seed)
        chosen_layers = filter_of(adapted, layers)
        warning = conversion_ahead(adapted, chosen_layers).warning
        if warning is not None:
            warnings.warn(f"{title}: {warning}", WtacrsWarning, stacklevel=2)
        yield title, coverage(adapted, batch, filter_fn=chosen_layers)
