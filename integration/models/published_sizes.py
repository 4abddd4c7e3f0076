"""Models by the sizes that were published for them, and any config: made without weights worth the name.

Sizes: T5 (Raffel et al., arXiv 1910.10683, table of sizes; T5 1.1 for `t5-v1_1-*`), BERT (Devlin et al., arXiv
1810.04805), GPT-2 (Radford et al., 2019), Llama 2 and 3 (Touvron et al., arXiv 2307.09288; Grattafiori et al., arXiv
2407.21783).
"""

from __future__ import annotations

import difflib
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.hub import one_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_CLASSES = {"t5": "T5Config", "bert": "BertConfig", "gpt2": "GPT2Config", "llama": "LlamaConfig"}


def _t5(d: int, ff: int, layers: int, heads: int, kv: int = 64, **more: Any) -> dict[str, Any]:
    sizes = {"d_model": d, "d_ff": ff, "num_layers": layers, "num_decoder_layers": layers, "num_heads": heads}
    return {"family": "t5", **sizes, "d_kv": kv, "vocab_size": 32_128, "decoder_start_token_id": 0, **more}


def _t5_gated(d: int, ff: int, layers: int, heads: int) -> dict[str, Any]:
    return _t5(d, ff, layers, heads, feed_forward_proj="gated-gelu", tie_word_embeddings=False)


def _bert(d: int, ff: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "family": "bert",
        "hidden_size": d,
        "intermediate_size": ff,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": 30_522,
    }


def _gpt2(d: int, layers: int, heads: int) -> dict[str, Any]:
    return {"family": "gpt2", "n_embd": d, "n_layer": layers, "n_head": heads, "vocab_size": 50_257}


def _llama(d: int, ff: int, layers: int, heads: int, groups: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "family": "llama",
        "hidden_size": d,
        "intermediate_size": ff,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        **more,
    }


_SIZES: dict[str, dict[str, Any]] = {
    "t5-small": _t5(512, 2048, 6, 8),
    "t5-base": _t5(768, 3072, 12, 12),
    "t5-large": _t5(1024, 4096, 24, 16),
    "t5-3b": _t5(1024, 16_384, 24, 32, 128),
    "t5-11b": _t5(1024, 65_536, 24, 128, 128),
    "t5-v1_1-small": _t5_gated(512, 1024, 8, 6),
    "t5-v1_1-base": _t5_gated(768, 2048, 12, 12),
    "t5-v1_1-large": _t5_gated(1024, 2816, 24, 16),
    "t5-v1_1-xl": _t5_gated(2048, 5120, 24, 32),
    "t5-v1_1-xxl": _t5_gated(4096, 10_240, 24, 64),
    "bert-base": _bert(768, 3072, 12, 12),
    "bert-large": _bert(1024, 4096, 24, 16),
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "llama-1b": _llama(2048, 8192, 16, 32, 8, 128_256, head_dim=64, tie_word_embeddings=True),
    "llama-3b": _llama(3072, 8192, 28, 24, 8, 128_256, head_dim=128, tie_word_embeddings=True),
    "llama-7b": _llama(4096, 11_008, 32, 32, 32, 32_000),
    "llama-8b": _llama(4096, 14_336, 32, 32, 8, 128_256),
    "llama-13b": _llama(5120, 13_824, 40, 40, 40, 32_000),
    "llama-70b": _llama(8192, 28_672, 80, 64, 8, 128_256),
}
PUBLISHED_SIZES: tuple[str, ...] = tuple(_SIZES)
"""Names that `config_of` knows."""


def published_options(name: str) -> tuple[str, dict[str, Any]]:
    """Class and options of the config of a published size, without what a vocabulary decides.

    Args:
        name: one of `PUBLISHED_SIZES`.
    """
    numbers = {k: v for k, v in _SIZES[name].items() if k not in ("vocab_size", "decoder_start_token_id")}
    return _CLASSES[numbers.pop("family")], numbers


def config_of(model: str | Path | PretrainedConfig) -> PretrainedConfig:
    """The config that a published size, a folder of a checkpoint, or its `config.json` names; a config itself.

    Raises:
        InputError: on another name, and on what is no config.
    """
    from transformers import AutoConfig, PretrainedConfig

    if isinstance(model, PretrainedConfig):
        return model
    if not isinstance(model, (str, Path)):
        raise InputError(f"model={type(model).__name__}: a name, a path or a config of transformers is needed")
    if str(model) in _SIZES:
        import transformers

        numbers = dict(_SIZES[str(model)])
        config: PretrainedConfig = getattr(transformers, _CLASSES[numbers.pop("family")])(**numbers)
        config.name_or_path = str(model)
        return config
    path = Path(model)
    if not path.exists():
        near = difflib.get_close_matches(str(model), _SIZES, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"model={str(model)!r}: {hint}a folder, a config.json, or one of {', '.join(_SIZES)}")
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except Exception as error:  # of whichever library checks the numbers
        raise InputError(f"model={str(model)!r} holds no config of transformers: {one_line(error)}") from None
    return config


def model_from(config: PretrainedConfig) -> PreTrainedModel:
    """A stock model with random weights, in training mode: it writes text if it is made to, and classifies otherwise.

    Weights lie where torch's modes put them: nowhere, under a mode without values.

    Raises:
        InputError: if transformers has no such model.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification
    from transformers.models.auto import modeling_auto as auto

    kinds = {
        AutoModelForSeq2SeqLM: _knows(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, config),
        # encoders that fill in masked words are among them too
        AutoModelForCausalLM: _knows(auto.MODEL_FOR_CAUSAL_LM_MAPPING, config)
        and not _knows(auto.MODEL_FOR_MASKED_LM_MAPPING, config),
        AutoModelForSequenceClassification: _knows(auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, config),
    }
    kind = next((kind for kind, fits in kinds.items() if fits), None)
    if kind is None:
        raise InputError(f"model={config.model_type!r}: it neither writes text nor classifies")
    model: PreTrainedModel = kind.from_config(deepcopy(config))  # lean attention is noted in it
    return model.train()


def _knows(mapping: Any, config: PretrainedConfig) -> bool:
    return type(config) in mapping
