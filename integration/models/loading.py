"""Models and tokenizers: a small T5 built on the spot, or any checkpoint of a folder or the hub.

Encoder–decoder models read and write text, as T5 does; all others get a classification head (one output for
regression). Every function here returns stock transformers objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.new_weights import weights_from
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.hub import hub_problem, one_line, quiet, refuse
from wtacrs.validation.seeds import checked_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, T5ForConditionalGeneration

SMALL_T5 = "small new T5"
"""What results call the embedded model."""
DEMO_VOCAB_SIZE = 6000
"""Pieces of the tokenizer that the embedded T5 gets for the `docstrings` task."""

NO_TEXT = (
    "has a classification head; --target needs a model that writes text: an encoder–decoder such as T5 or BART"
)
"""What is said of a model that cannot write targets."""

_SPECIAL = ("<pad>", "</s>", "<unk>")
EMBEDDING_SCALE = 0.05
"""Standard deviation of the embeddings of new T5 models."""
_OFFLINE_WAYS = "--model DIR of a saved checkpoint, or leave --model out for the embedded small T5"
_TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.txt", "vocab.json")
_WEIGHT_FILES = tuple(
    f"{stem}{end}" for stem in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json")
)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = DEMO_VOCAB_SIZE, *, lower_case: bool = True
) -> PreTrainedTokenizerBase:
    """Train a BPE tokenizer, of lower case unless said otherwise: pad 0, eos 1, unk 2; every encoded text ends in eos.

    The same texts give the same tokenizer. Raises `InputError` if `vocab_size` is below 300 or there is no text.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < 300:
        raise InputError(f"vocab_size={vocab_size}: at least 300 pieces are needed")
    texts = list(texts)
    if not texts:
        raise InputError("texts: at least one text is needed to train a tokenizer")
    pad, eos, unk = _SPECIAL
    bpe = Tokenizer(models.BPE(unk_token=unk))
    folded = [normalizers.NFKC(), normalizers.Lowercase()]
    bpe.normalizer = normalizers.Sequence(folded if lower_case else folded[:1])
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    bpe.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(_SPECIAL), show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", pair=f"$A $B {eos}", special_tokens=[(eos, _SPECIAL.index(eos))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=pad, eos_token=eos, unk_token=unk)


def task_tokenizer(task: TaskData, vocab_size: int = DEMO_VOCAB_SIZE) -> PreTrainedTokenizerBase:
    """Tokenizer trained on the inputs and answers of a task's training examples; dev is not looked at.

    It keeps upper case where answers are free text.
    """
    texts = (text for e in task.train for text in (e.text, e.target))
    return train_tokenizer(texts, vocab_size, lower_case=not task.free_text)


def small_t5(
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    d_model: int = 128,
    d_ff: int = 256,
    layers: int = 2,
    decoder_layers: int = 1,
    heads: int = 4,
    dropout: float = 0.1,
) -> T5ForConditionalGeneration:
    """A small encoder–decoder T5 with random weights for a tokenizer that has pad and eos tokens.

    The defaults are those of the demo: with `DEMO_VOCAB_SIZE` pieces 1.2 million parameters. The weights are a
    function of the seed and the sizes; torch's global generators are left as they were. Raises `InputError` for
    sizes below 1, `heads` that do not divide `d_model`, or a dropout outside [0, 1).
    """
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": d_model, "d_ff": d_ff, "layers": layers, "decoder_layers": decoder_layers, "heads": heads}
    for name, value in sizes.items():
        if value < 1:
            raise InputError(f"{name}={value}: at least 1 is needed")
    if d_model % heads:
        raise InputError(f"heads={heads} does not divide d_model={d_model}")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout} is not in [0, 1)")
    _require_special_tokens(tokenizer)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=d_model,
        d_kv=d_model // heads,
        d_ff=d_ff,
        num_layers=layers,
        num_decoder_layers=decoder_layers,
        num_heads=heads,
        dropout_rate=dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    with weights_from(seed), torch.no_grad():
        model = T5ForConditionalGeneration(config)
        # T5's own scales suit Adafactor's relative steps: Adam's take thousands to move embeddings of scale 1, and
        # to undo the factor d_model^-0.5 of the logits
        model.shared.weight.mul_(EMBEDDING_SCALE)
        model.decoder.final_layer_norm.weight.fill_(d_model**0.5)
    model.name_or_path = SMALL_T5
    return model


def model_name(model: PreTrainedModel) -> str:
    """What results call a model: its name on the hub, or its folder, without where on a machine it lies."""
    return without_place(model.name_or_path) or type(model).__name__


def without_place(name: str) -> str:
    """The last two parts of a path that is absolute or leads to a folder; other names as they are."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if name and (path.is_absolute() or path.is_dir()) else name


def load_model(
    name: str, task: TaskData, *, seed: int = 0, tell: Callable[[str], None] | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint in fp32, in eval mode, and its tokenizer.

    Args:
        name: a local folder with config, weights and tokenizer, or the name of a repository of the hub.
        task: gives a classification head its number of outputs. A head for another number is replaced.
        seed: of a classification head that the checkpoint does not have; no other weights may be missing.
        tell: called with a line where there is such a head.

    Raises:
        InputError: if the folder is missing or incomplete, the checkpoint lacks weights, or the hub cannot be
            reached and nothing is cached.
    """
    seed = checked_seed(seed)
    local = check_local("model", name)
    if local:
        _require_files(Path(name))
    problem = None if local else hub_problem("model", name)
    tried = f"model={name!r}" if local else f"model={name!r} of the Hugging Face hub"
    try:
        with quiet(), weights_from(seed):
            model, absent = _from_pretrained(name, task, offline=local or problem is not None)
            tokenizer = _pretrained_tokenizer(name, offline=local or problem is not None)
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError …: every way of being unusable
        raise refuse(tried, problem or one_line(error), None if local else _OFFLINE_WAYS) from error
    required = [key for key in absent if is_text_to_text(model) or _belongs_to_body(model, key)]
    if required:
        raise InputError(
            f"{tried}: the checkpoint lacks {len(required)} weights of {type(model).__name__}, or has them in "
            f"another shape, such as {required[0]!r}; only a classification head may be missing"
        )
    if absent and tell is not None:
        tell(
            f"{without_place(name)} has no classification head for this task: it gets a new one, drawn by the seed"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _require_special_tokens(tokenizer, eos=is_text_to_text(model))
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer alone, from a folder or the hub, for use with `small_t5`; errors as in `load_model`."""
    local = check_local("tokenizer", name)
    problem = None if local else hub_problem("model", name)
    try:
        with quiet():
            tokenizer = _pretrained_tokenizer(name, offline=local or problem is not None)
    except Exception as error:  # as in load_model
        ways = "--tokenizer DIR with tokenizer.json, or leave --tokenizer out to train one"
        raise refuse(f"tokenizer={name!r}", problem or one_line(error), None if local else ways) from error
    _require_special_tokens(tokenizer)
    return tokenizer


def is_text_to_text(model: torch.nn.Module) -> bool:
    """Whether a model reads and writes text (encoder–decoder) rather than having a classification head."""
    config = getattr(model, "config", None)
    can_generate = getattr(model, "can_generate", lambda: False)
    return bool(getattr(config, "is_encoder_decoder", False)) and bool(can_generate())


def check_local(argument: str, name: str) -> bool:
    """Whether a name is a local folder; refuses what can only be meant as one (hub: ``name``, ``owner/name``)."""
    if name and Path(name).is_dir():
        return True
    if not name or re.match(r"[./~\\]", name) or name.count("/") > 1 or Path(name).exists():
        raise InputError(f"{argument}={name!r} is not a folder; a folder or a name of the hub is accepted")
    return False


def check_writes_text(name: str) -> None:
    """Refuse a local folder whose model writes no text; a name of the hub is checked when it is loaded.

    Raises:
        InputError: naming what is accepted.
    """
    config = Path(name) / "config.json"
    if not config.is_file():
        return
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except ValueError:  # told when it is loaded
        return
    if not (isinstance(found, dict) and found.get("is_encoder_decoder")):
        raise InputError(f"model={name!r} {NO_TEXT}")


def _require_files(folder: Path) -> None:
    for what, names in (("config", ("config.json",)), ("weights", _WEIGHT_FILES), ("tokenizer", _TOKENIZER_FILES)):
        if not any((folder / name).is_file() for name in names):
            raise InputError(
                f"model={str(folder)!r} has no {what}, {' or '.join(names)} is missing; needed is a folder that "
                "save_pretrained of model and tokenizer wrote, or leave --model out for the embedded small T5"
            )


def _from_pretrained(name: str, task: TaskData, *, offline: bool) -> tuple[PreTrainedModel, list[str]]:
    """The model, and names of weights that the checkpoint did not give."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    options: dict[str, Any] = {
        "local_files_only": offline,
        "trust_remote_code": False,
        "output_loading_info": True,
        "dtype": torch.float32,
    }
    if AutoConfig.from_pretrained(name, local_files_only=offline, trust_remote_code=False).is_encoder_decoder:
        model, info = AutoModelForSeq2SeqLM.from_pretrained(name, **options)
    elif task.free_text:
        raise InputError(NO_TEXT)
    else:
        labels = dict(enumerate(task.labels or ["number"]))
        model, info = AutoModelForSequenceClassification.from_pretrained(
            name,
            num_labels=len(labels),
            id2label=labels,
            label2id={label: index for index, label in labels.items()},
            problem_type="single_label_classification" if task.labels else "regression",
            ignore_mismatched_sizes=True,
            **options,
        )
    mismatched = (key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])
    return model, sorted({*info["missing_keys"], *mismatched})


def _belongs_to_body(model: PreTrainedModel, key: str) -> bool:
    """Not to the head; a pooler counts as head, checkpoints of language models come without."""
    return key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key


def _pretrained_tokenizer(name: str, *, offline: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, local_files_only=offline, trust_remote_code=False)


def _require_special_tokens(tokenizer: PreTrainedTokenizerBase, *, eos: bool = True) -> None:
    for token, needed in (("pad", True), ("eos", eos)):
        if needed and getattr(tokenizer, f"{token}_token_id") is None:
            raise InputError(f"tokenizer {tokenizer.name_or_path!r} has no {token} token, which is needed")
