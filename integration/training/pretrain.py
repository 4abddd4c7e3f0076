"""Pre-training of a new T5 by span corruption, with transformers' own `Seq2SeqTrainer` and `WtacrsCallback`."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wtacrs.estimators import InputError
from wtacrs.integration.layers.choice import made_of_argument
from wtacrs.integration.models.loading import load_tokenizer, small_t5
from wtacrs.integration.models.text_models import corpus_tokenizer
from wtacrs.integration.progress import progress_display
from wtacrs.integration.tasks.span_corruption import (
    SpanCorruption,
    corpus_files,
    piece_length,
    read_pieces,
    sentinels_of,
    spans_of,
)
from wtacrs.integration.training.checkpoints import save_checkpoint
from wtacrs.integration.training.defaults import NEW_MODEL_LEARNING_RATE
from wtacrs.validation.arguments import check_kind, checked_integer, is_number
from wtacrs.validation.dry_run import begin_work, is_dry_run
from wtacrs.validation.files import check_folder
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.pretrain import PretrainingPoint, PretrainingResult
from wtacrs.validation.records.results import write_result, write_text
from wtacrs.validation.seeds import checked_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Seq2SeqTrainer

SIZES: dict[str, dict[str, int]] = {
    "demo": {},
    "mini": {"d_model": 256, "d_ff": 1024, "layers": 4, "decoder_layers": 4, "heads": 4},
    "small": {"d_model": 512, "d_ff": 2048, "layers": 6, "decoder_layers": 6, "heads": 8},
}
"""Sizes of the T5; "small" is that of t5-small, 60 million parameters with its vocabulary."""

_VALID_PIECES = 512


@dataclass(frozen=True)
class PretrainingConfig:
    """What a run depends on besides corpus and tokenizer; checked when it is made (`InputError`).

    `estimator` is a spec, None for exact; `max_length` counts tokens of the corrupted input; `lr` is reached after 5 % of
    the steps and falls in a straight line to 0; `vocabulary` is the number of pieces of one that is made from the corpus.
    """

    size: str = "demo"
    steps: int = 1_000
    batch_size: int = 32
    lr: float = NEW_MODEL_LEARNING_RATE
    max_length: int = 128
    estimator: str | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    save_every: int = 500
    train_limit: int | None = None
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        if self.size not in list(SIZES):
            raise InputError(f"size={self.size!r}: must be {', '.join(SIZES)}")
        for name in ("steps", "batch_size", "save_every"):
            checked_integer(getattr(self, name), name, least=1)
        if self.vocabulary is not None:
            checked_integer(self.vocabulary, "vocabulary", least=300, or_none=True)
        if self.train_limit is not None:
            checked_integer(self.train_limit, "train_limit", least=1, or_none=True)
        if not is_number(self.lr) or not 0 < self.lr < math.inf:
            raise InputError(f"lr={self.lr!r} must be a finite number greater than 0")
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"precision={self.precision!r}: must be fp32 or bf16")
        if self.estimator is not None:
            made_of_argument(self.estimator)
        checked_seed(self.seed)
        piece_length(self.max_length)


def pretrain(
    config: PretrainingConfig,
    corpus: Path,
    tokenizer: str | None,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> PretrainingResult:
    """Train a new T5 on a corpus; `out/model` is what `--model` of the other commands takes.

    `out` also gets `result.json` and Trainer's checkpoints, from which an interrupted run is resumed.

    Args:
        config: how to train.
        corpus: folder with one `*train*.txt[.gz]` and one `*valid*.txt[.gz]`, a paragraph per line.
        tokenizer: name or folder of a tokenizer that has sentinels, as T5's; None for one of `config.vocabulary` pieces
            that is made from the corpus.
        out: folder of the run.
        resume: continue from the last checkpoint in it.
        overwrite: start anew whatever it holds.
        progress: show a progress line on stderr.

    Raises:
        InputError: on an unusable argument, and on a folder that holds a run, or none to resume.
    """
    check_kind(config, "config", PretrainingConfig)
    if tokenizer is not None:
        check_kind(tokenizer, "tokenizer", str)
    if (tokenizer is None) == (config.vocabulary is None):
        raise InputError("tokenizer, vocabulary: give one of them, a vocabulary or the number of its pieces")
    check_kind(corpus, "corpus", Path)
    check_kind(out, "out", Path)
    check_folder("out", out)
    checkpoint = _checkpoint(out, resume=resume, overwrite=overwrite)
    files = corpus_files(corpus)
    vocabulary = (
        load_tokenizer(tokenizer)
        if tokenizer is not None
        else corpus_tokenizer(files[0], config.vocabulary or 0, spans_of(piece_length(config.max_length))[1] + 1)
    )
    limits = (config.train_limit, _VALID_PIECES)
    train, valid = (
        SpanCorruption(
            read_pieces(file, vocabulary, piece_length(config.max_length), limit=limit),
            sentinels_of(vocabulary),
            vocabulary.eos_token_id,
            seed=config.seed + part,
        )
        for part, (file, limit) in enumerate(zip(files, limits, strict=True))
    )
    _agree(out / "settings.json", config, resume=resume)
    begin_work(
        f"a new T5 ({config.size}) on {corpus}: {config.steps} steps of {config.batch_size} "
        f"pieces, {len(train):,} in all",
        "continued from its last checkpoint" if checkpoint is not None else "trained from the start",
        f"writes {out / 'result.json'}, {out / 'model'}",
    )
    with progress_display(progress, title=f"span corruption · {config.estimator or 'exact'}") as show:
        trainer = _trainer(config, vocabulary, train, valid, out, show)
        before = trainer.evaluate()["eval_loss"]
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.perf_counter() - started
        after = trainer.evaluate()["eval_loss"]
    model = trainer.model
    save_checkpoint(out / "model", model, vocabulary)
    told = {} if tokenizer is None else {"tokenizer": tokenizer}
    described = {key: str(value) for key, value in asdict(config).items() if key != "seed" and value is not None}
    result = PretrainingResult(
        stamp=stamp(seed=config.seed, device=model.device.type, inputs=described | told),
        size=config.size,
        estimator=config.estimator or "exact",
        parameters=model.num_parameters(),
        steps=config.steps,
        tokens=config.steps * config.batch_size * piece_length(config.max_length),
        valid_before=before,
        valid_after=after,
        seconds=seconds,
        history=[
            PretrainingPoint(step=entry["step"], train_loss=entry["loss"])
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
    )
    write_result(out / "result.json", result)
    return result


def _checkpoint(out: Path, *, resume: bool, overwrite: bool) -> str | None:
    from transformers.trainer_utils import get_last_checkpoint

    if resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other")
    last = get_last_checkpoint(str(out)) if out.is_dir() else None
    if resume and last is None:
        raise InputError(f"out={out}: there is no checkpoint to resume from")
    if not (resume or overwrite) and (last is not None or (out / "result.json").exists()):
        raise InputError(f"out={out} holds a run already: --resume it, --overwrite it, or name another")
    if overwrite and not is_dry_run():
        for folder in out.glob("checkpoint-*"):
            shutil.rmtree(folder)
    return last if resume else None


def _agree(path: Path, config: PretrainingConfig, *, resume: bool) -> None:
    """Write the settings of the run; a resumed run must have the same."""
    ours = {key: value for key, value in asdict(config).items() if key != "save_every"}
    if resume and path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        for key, value in ours.items():
            if theirs.get(key) != value:
                raise InputError(f"resume: {key}={value!r}, but the run in {path.parent} had {theirs.get(key)!r}")
    write_text(path, json.dumps(ours, indent=2) + "\n")


def _trainer(
    config: PretrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    train: SpanCorruption,
    valid: SpanCorruption,
    out: Path,
    show: Callable[..., None],
) -> Seq2SeqTrainer:
    from transformers import (
        DataCollatorForSeq2Seq,
        PrinterCallback,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        TrainerCallback,
    )

    from wtacrs.integration.training.callback import WtacrsCallback

    class Shown(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            show(step=state.global_step, total=config.steps, loss=(logs or {}).get("loss"))

    callbacks: list[TrainerCallback] = [Shown()]
    if config.estimator is not None:
        callbacks.append(WtacrsCallback(config.estimator))
    arguments = Seq2SeqTrainingArguments(
        str(out),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        learning_rate=config.lr,
        warmup_steps=round(0.05 * config.steps),
        weight_decay=0.01,
        bf16=config.precision == "bf16",
        logging_steps=max(1, min(50, config.steps // 4)),
        save_steps=config.save_every,
        save_total_limit=2,
        seed=config.seed,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
    )
    trainer = Seq2SeqTrainer(
        model=small_t5(tokenizer, seed=config.seed, **SIZES[config.size]),
        args=arguments,
        train_dataset=train,
        eval_dataset=valid,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
