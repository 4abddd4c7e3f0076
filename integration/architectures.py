"""Small untrained models of other architectures, built from a config for a task's tokenizer, so that they work offline.

They are stock transformers models with a classification head. All their projections are `nn.Linear`; BERT and DeBERTa
are encoders, OPT and Llama decoders, Llama with a gated feed-forward part and rotary positions.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from wtacrs.estimators.errors import InputError
from wtacrs.integration.data import TaskData

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREFIX = "new:"
"""What a model name begins with that is built rather than loaded."""

HIDDEN, FEED_FORWARD, LAYERS, HEADS, POSITIONS = 128, 256, 2, 4, 512


def _bert(common: dict[str, Any]) -> PreTrainedModel:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            hidden_size=HIDDEN,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=POSITIONS,
            **common,
        )
    )


def _deberta(common: dict[str, Any]) -> PreTrainedModel:
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    return DebertaV2ForSequenceClassification(
        DebertaV2Config(
            hidden_size=HIDDEN,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=POSITIONS,
            relative_attention=True,
            position_buckets=32,
            pos_att_type=["p2c", "c2p"],
            **common,
        )
    )


def _opt(common: dict[str, Any]) -> PreTrainedModel:
    from transformers import OPTConfig, OPTForSequenceClassification

    return OPTForSequenceClassification(
        OPTConfig(
            hidden_size=HIDDEN,
            word_embed_proj_dim=HIDDEN,
            ffn_dim=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=POSITIONS,
            **common,
        )
    )


def _llama(common: dict[str, Any]) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    return LlamaForSequenceClassification(
        LlamaConfig(
            hidden_size=HIDDEN,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=POSITIONS,
            **common,
        )
    )


_BUILDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bert": _bert,
    "deberta": _deberta,
    "llama": _llama,
    "opt": _opt,
}
NEW_MODELS: tuple[str, ...] = tuple(f"{PREFIX}{name}" for name in _BUILDERS)
"""Names that `new_model` takes."""


def is_new(name: str | None) -> bool:
    """Whether a model name asks for a new model rather than for a checkpoint."""
    return name is not None and name.startswith(PREFIX)


def check_new(name: str) -> None:
    """Refuse a name of an architecture that cannot be built.

    Raises:
        InputError: naming those that can.
    """
    if name not in NEW_MODELS:
        near = difflib.get_close_matches(name, NEW_MODELS, n=2, cutoff=0.7)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(
            f"model={name!r}: {hint}{', '.join(NEW_MODELS)} can be built; without a model it is a small new T5"
        )


def new_model(name: str, tokenizer: PreTrainedTokenizerBase, task: TaskData, *, seed: int = 0) -> PreTrainedModel:
    """A model with random weights and a head for the task, of 128 dimensions and two layers.

    The weights are a function of the seed; torch's global generators are left as they were. The tokenizer needs pad and
    eos tokens, and is told what the model reads: ids and mask, up to 512 tokens.

    Args:
        name: one of `NEW_MODELS`.
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
    tokenizer.model_max_length = POSITIONS
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model = _BUILDERS[name.removeprefix(PREFIX)](common)
    model.name_or_path = f"small {name.replace(PREFIX, 'new ')}"
    return model.eval()
