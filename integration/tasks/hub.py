"""The Hugging Face hub: one short request tells whether it answers, since its libraries retry for half a minute."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from wtacrs.estimators.core.errors import InputError

TIMEOUT_SECONDS = 5.0


def hub_problem(kind: Literal["model", "dataset"], repository: str) -> str | None:
    """Say in a few words why a repository of the hub cannot be downloaded now; None if it can.

    One request is made, no longer than `TIMEOUT_SECONDS`; none under ``HF_HUB_OFFLINE=1``.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        ask(repository, timeout=TIMEOUT_SECONDS)
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except HFValidationError:
        return "not a name that a repository can have"
    except HfHubHTTPError as error:
        status = error.response.status_code
        return "no such repository, or a private one" if status in (401, 403, 404) else f"HTTP status {status}"
    except Exception as error:  # the HTTP client behind the hub library, and so its exceptions, changes
        return f"no connection: {one_line(error)}"
    return None


def load_splits(what: str, dataset: Sequence[str], ways: str) -> Any:
    """The splits of a data set of the hub, as `datasets.load_dataset` returns them.

    Args:
        what: names the data set in messages.
        dataset: repository, and the name of the configuration if it has several.
        ways: what works without network.

    Raises:
        InputError: if it can neither be downloaded nor is in the cache.
    """
    problem = hub_problem("dataset", dataset[0])
    offline = problem == "HF_HUB_OFFLINE is set"  # an earlier download may still be in the cache
    if problem is not None and not offline:
        raise refuse(what, problem, ways)
    try:
        with _quiet_datasets():
            from datasets import load_dataset

            return load_dataset(*dataset)
    except Exception as error:  # whatever the libraries make of a broken download or an empty cache
        reason = f"{problem} and it is not in the cache" if offline else one_line(error)
        raise refuse(what, reason, ways) from error


def one_line(error: BaseException) -> str:
    """The first line of an error's message, shortened, or its type if it has none."""
    lines = str(error).strip().splitlines()
    text = lines[0].rstrip(" :") if lines else type(error).__name__
    return text if len(text) <= 160 else text[:157] + "…"


def refuse(what: str, reason: str, ways: str | None) -> InputError:
    """The one line that an unusable model or data set ends in; `ways` around the hub, None for a local folder."""
    return InputError(f"{what} could not be loaded ({reason})" + (f"; without network: {ways}" if ways else ""))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and remarks of transformers, datasets and huggingface_hub; then as before."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    hub_bars, model_bars = not are_progress_bars_disabled(), transformers_logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if hub_bars:
            enable_progress_bars()
        if model_bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with quiet():
            yield
    finally:
        if shown:
            enable_progress_bars()
