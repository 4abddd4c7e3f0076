"""Small untrained models of other architectures, built from a config for a task's tokenizer, so that they work offline.

They are stock transformers models. BERT and DeBERTa are encoders, and OPT, Llama and GPT-2 decoders, with a
classification head; Llama has a gated feed-forward part and rotary positions, GPT-2 keeps its weights as `[d, m]`
(`Conv1D`). `t5-gated` is the encoder–decoder of T5 1.1: a gated feed-forward part, and a head with weights of its own.

A published size that is no name of a small one (`new:t5-base`) is built too, untrained: its widths, blocks and heads, and
the vocabulary of the tokenizer.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.models.loading import EMBEDDING_SCALE, NO_TEXT
from wtacrs.integration.models.new_weights import weights_from
from wtacrs.integration.models.published_sizes import PUBLISHED_SIZES, published_options
from wtacrs.integration.tasks.base import TaskData

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREFIX = "new:"
"""What a model name begins with that is built rather than loaded."""

HEAD = "SequenceClassification"
"""What transformers call a classification head."""

HIDDEN, FEED_FORWARD, LAYERS, HEADS, POSITIONS = 128, 256, 2, 4, 512


_SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
}


class _Architecture(NamedTuple):
    """Names of classes of transformers, and the options of a config beside those that a task gives."""

    config: str
    model: str
    options: dict[str, Any]


def _classifier(stem: str, **options: Any) -> _Architecture:
    return _Architecture(f"{stem}Config", f"{stem}For{HEAD}", options)


_ARCHITECTURES = {
    "bert": _classifier("Bert", intermediate_size=FEED_FORWARD, **_SIZES),
    "deberta": _classifier(
        "DebertaV2",
        intermediate_size=FEED_FORWARD,
        relative_attention=True,
        position_buckets=32,
        pos_att_type=["p2c", "c2p"],
        **_SIZES,
    ),
    "gpt2": _classifier(
        "GPT2", n_embd=HIDDEN, n_inner=FEED_FORWARD, n_layer=LAYERS, n_head=HEADS, n_positions=POSITIONS
    ),
    "llama": _classifier("Llama", intermediate_size=FEED_FORWARD, num_key_value_heads=HEADS, **_SIZES),
    "opt": _classifier("OPT", ffn_dim=FEED_FORWARD, word_embed_proj_dim=HIDDEN, **_SIZES),
    "t5-gated": _Architecture(
        "T5Config",
        "T5ForConditionalGeneration",
        {
            "d_model": HIDDEN,
            "d_ff": FEED_FORWARD,
            "d_kv": HIDDEN // HEADS,
            "num_layers": LAYERS,
            "num_decoder_layers": LAYERS,
            "num_heads": HEADS,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
    ),
}
NEW_MODELS: tuple[str, ...] = tuple(f"{PREFIX}{name}" for name in _ARCHITECTURES)
"""Names of small models that `new_model` takes."""
NEW_SIZES: tuple[str, ...] = tuple(f"{PREFIX}{name}" for name in PUBLISHED_SIZES if name not in _ARCHITECTURES)
"""Names of models of a published size that `new_model` takes."""


def is_new(name: str | None) -> bool:
    """Whether a model name asks for a new model rather than for a checkpoint."""
    return name is not None and name.startswith(PREFIX)


def new_model_name(name: str) -> str:
    """What results call the new model of this name."""
    told = name.replace(PREFIX, "new ")
    return told if name in NEW_SIZES else f"small {told}"


def check_new(name: str) -> None:
    """Refuse a name of an architecture that cannot be built.

    Raises:
        InputError: naming those that can.
    """
    if name not in (*NEW_MODELS, *NEW_SIZES):
        near = difflib.get_close_matches(name, (*NEW_MODELS, *NEW_SIZES), n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"model={name!r}: {hint}{', '.join(NEW_MODELS)} can be built, and published sizes such as new:t5-base; "
            "without a model it is a small new T5"
        )


def check_new_writes_text(name: str) -> None:
    """Refuse a new model that has a classification head, where answers are texts.

    Raises:
        InputError: naming what is accepted.
    """
    if not _writes_text(_architecture(name)):
        writers = [f"{PREFIX}{stem}" for stem, one in _ARCHITECTURES.items() if _writes_text(one)]
        raise InputError(f"model={name!r} {NO_TEXT}, as {', '.join(writers)} or the small new T5 without --model")


def _architecture(name: str) -> _Architecture:
    stem = name.removeprefix(PREFIX)
    if stem in _ARCHITECTURES:
        return _ARCHITECTURES[stem]
    config, options = published_options(stem)
    family = config.removesuffix("Config")
    return _Architecture(config, f"{family}For{'ConditionalGeneration' if family == 'T5' else HEAD}", options)


def _writes_text(architecture: _Architecture) -> bool:
    return architecture.model.endswith("ForConditionalGeneration")


def new_model(name: str, tokenizer: PreTrainedTokenizerBase, task: TaskData, *, seed: int = 0) -> PreTrainedModel:
    """A model with random weights, of a published size or of 128 dimensions and two layers.

    It has a head for the task unless it writes text.

    The weights are a function of the seed; torch's global generators are left as they were. The tokenizer needs pad and
    eos tokens, and gets the names of what the model reads, ids and mask, and its 512 positions.

    Args:
        name: one of `NEW_MODELS` or `NEW_SIZES`.
        tokenizer: gives the vocabulary.
        task: gives the head its outputs.
        seed: of the weights.

    Raises:
        InputError: on another name.
    """
    check_new(name)
    labels = dict(enumerate(task.labels or ["number"]))
    common = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "id2label": labels,
        "label2id": {label: index for index, label in labels.items()},
        "problem_type": "single_label_classification" if task.labels else "regression",
    }
    with weights_from(seed):
        model = _built(_architecture(name), common)
    tokenizer.model_max_length = POSITIONS
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    model.name_or_path = new_model_name(name)
    return model.eval()


def _built(architecture: _Architecture, common: dict[str, Any]) -> PreTrainedModel:
    import transformers

    writes_text = _writes_text(architecture)
    start = {"decoder_start_token_id": common["pad_token_id"]} if writes_text else {}
    config = getattr(transformers, architecture.config)(**architecture.options, **common, **start)
    model = getattr(transformers, architecture.model)(config)
    if writes_text:  # as in `small_t5`: Adam's steps are small beside weights of scale 1
        with torch.no_grad():
            model.shared.weight.mul_(EMBEDDING_SCALE)
            if model.lm_head.weight is model.shared.weight:
                model.decoder.final_layer_norm.weight.fill_(config.d_model**0.5)  # undoes the factor of the logits
            else:
                model.lm_head.weight.mul_(EMBEDDING_SCALE)
    return model
