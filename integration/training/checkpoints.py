"""Files of a run, each written whole or not at all: model folders and the state from which a run is resumed."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.lora import is_lora, merged_state, stock_model
from wtacrs.integration.parallel.processes import Processes, mixed_seed
from wtacrs.integration.tasks.hub import quiet
from wtacrs.validation.files import replacing, writing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write model and tokenizer by `save_pretrained`; `folder` changes only once all is written.

    `weights` is the model's state dict where no process has all of the model. For a model in peft's wrapper the folder
    holds the stock model with merged adapters, and in `adapter/` the adapters alone, as peft reads them.
    """
    with writing(folder):
        _replace_folder(folder, model, tokenizer, weights)


def _replace_folder(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, Tensor] | None,
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    written = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with quiet():
            if is_lora(model):
                stock_model(model).save_pretrained(written, state_dict=merged_state(model))
                model.save_pretrained(written / "adapter", save_embedding_layers=False)  # never trained
            else:
                model.save_pretrained(written, state_dict=weights)
            tokenizer.save_pretrained(written)
        written.chmod(0o755)
        before = folder.with_name(f".{folder.name}.before")
        shutil.rmtree(before, ignore_errors=True)
        if folder.exists():
            folder.rename(before)
        written.rename(folder)
        shutil.rmtree(before, ignore_errors=True)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        raise


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove what a process that was killed while it wrote `names` left beside them."""
    for name in names:
        for path in folder.glob(f".{name}.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a dict of tensors, numbers, texts, lists and dicts."""
    # through a stream: a path's name would go into the archive
    with replacing(path) as partial, partial.open("wb") as stream:
        torch.save(state, stream)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU; `InputError` if the file is missing or is not such a state."""
    if not path.is_file():
        raise InputError(f"resume: {path} does not exist; only a run that was started with this folder can go on")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
        state = None
    if not isinstance(state, dict):
        raise InputError(f"resume: {path} is not the state of a run; start again without resume") from None
    return state


def random_states(processes: Processes = Processes()) -> dict[str, Any]:
    """States of torch's global generators, which models draw from; estimators have `sampling_state`.

    One process may use several GPUs; of several processes each has its own.
    """
    cuda: list[Tensor] = []
    if torch.cuda.is_available():
        cuda = torch.cuda.get_rng_state_all() if processes.count == 1 else [torch.cuda.get_rng_state()]
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_states(states: dict[str, Any]) -> None:
    """Put torch's global generators where `random_states` found them."""
    torch.set_rng_state(states["cpu"])
    if len(states["cuda"]) == 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"][0])
    elif states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def resume_random_states(saved: list[dict[str, Any]], processes: Processes, seed: int, step: int) -> None:
    """Put torch's global generators where those of the process of this rank were when `saved` was.

    A process that had no predecessor is seeded by its rank, the step and the run's seed. So a resumed run is the same to
    the last bit in as many processes; in another number of them it has other random numbers, the same every time.

    Args:
        saved: one entry of `random_states` for every process there was.
        processes: that there are now.
        seed: of the run.
        step: from which it resumes.
    """
    if processes.rank >= len(saved):
        torch.manual_seed(mixed_seed(seed, "resumed at", step, "process", processes.rank))
        return
    mine = saved[processes.rank]
    set_random_states(mine if processes.count == 1 else {"cpu": mine["cpu"], "cuda": mine["cuda"][:1]})
