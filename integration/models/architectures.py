"""Tiny untrained models of many architectures of transformers, and a padded batch for each.

They show how a model treats padding, and nothing of its accuracy: two layers or so of 32 dimensions. Text has lengths of
10, 6 and 8 tokens, and encoder and decoder read equally many, so that masks of both fit both by their shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from wtacrs.integration.context.masks import IGNORED_LABEL
from wtacrs.integration.models.new_weights import weights_from

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Side = Literal["right", "left"]
"""Where padding stands."""

LENGTHS = (10, 6, 8)
TOKENS = max(LENGTHS)
VOCABULARY, PAD, START, CLASSES = 80, 0, 1, 3
_FIRST = 4  # token that is no special one
_FRAMES = 2 * TOKENS  # of audio; the encoder of Whisper halves them
_IMAGE = 24  # nine patches and the class token: as many rows as text tokens

Head = Literal["classes", "tokens", "span", "language", "text to text", "pairs", "speech"]
"""What a model is trained on: a class per sequence, labels per token, a span, the next or the masked token, text, pairs
of text and image, or a transcript of audio."""


class Architecture(NamedTuple):
    """Names of classes of transformers, what the head reads, the options of the config, precision, and further arguments.

    Single precision is for code that casts within: masks of the size of the largest double are infinite there.
    """

    config: str
    model: str
    head: Head
    options: Mapping[str, Any]
    single: bool = False
    arguments: Mapping[str, Any] = MappingProxyType({})

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return torch.float32 if self.single else torch.float64


_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_ENCODER: dict[str, Any] = {**_SIZES, "intermediate_size": 48}
_DECODER: dict[str, Any] = {**_ENCODER, "num_key_value_heads": 2}
_T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": START,
}
_BART: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64, "decoder_start_token_id": START,
}  # fmt: skip
_HEADS: dict[str, Head] = {
    "SequenceClassification": "classes",
    "TokenClassification": "tokens",
    "QuestionAnswering": "span",
    "CausalLM": "language",
    "LMHeadModel": "language",
    "MaskedLM": "language",
    "ConditionalGeneration": "text to text",
}


def _of(
    stem: str,
    purpose: str,
    *,
    single: bool = False,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Architecture:
    model = f"{stem}{purpose}" if purpose == "LMHeadModel" else f"{stem}For{purpose}"
    return Architecture(f"{stem}Config", model, _HEADS[purpose], options, single, arguments)


_CLIP: dict[str, Any] = {
    "text_config": {**_ENCODER, "vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": 3},
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8,
        "image_size": _IMAGE,
    },
    "projection_dim": 16,
}  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {
    "bert": _of("Bert", "SequenceClassification", **_ENCODER),
    "roberta": _of("Roberta", "TokenClassification", **_ENCODER),
    "albert": _of("Albert", "QuestionAnswering", embedding_size=16, **_ENCODER),
    "distilbert": _of("DistilBert", "SequenceClassification", dim=32, hidden_dim=48, n_layers=2, n_heads=4),
    "electra": _of("Electra", "TokenClassification", embedding_size=16, **_ENCODER),
    "deberta-v2": _of(
        "DebertaV2", "SequenceClassification", relative_attention=True, position_buckets=8,
        pos_att_type=["p2c", "c2p"], **_ENCODER,
    ),
    "xlnet": _of("XLNet", "SequenceClassification", d_model=32, n_layer=2, n_head=4, d_inner=48),
    "xlm": _of("XLM", "SequenceClassification", emb_dim=32, n_layers=2, n_heads=4),
    "longformer": _of("Longformer", "SequenceClassification", single=True, attention_window=8, **_ENCODER),
    "bigbird": _of("BigBird", "TokenClassification", attention_type="original_full", **_ENCODER),
    "fnet": _of("FNet", "SequenceClassification", **_ENCODER),
    "nystromformer": _of(
        "Nystromformer", "SequenceClassification", num_landmarks=TOKENS, segment_means_seq_len=TOKENS, **_ENCODER
    ),
    "yoso": _of("Yoso", "SequenceClassification", use_expectation=True, **_ENCODER),
    "convbert": _of("ConvBert", "TokenClassification", embedding_size=32, **_ENCODER),
    "mpnet": _of("MPNet", "QuestionAnswering", **_ENCODER),
    "funnel": _of(
        "Funnel", "SequenceClassification", d_model=32, n_head=4, d_head=8, d_inner=48, block_sizes=[1, 1],
        num_decoder_layers=1,
    ),
    "modernbert": _of("ModernBert", "SequenceClassification", **_ENCODER),
    "esm": _of("Esm", "MaskedLM", mask_token_id=3, **_ENCODER),
    "gpt2": _of("GPT2", "LMHeadModel", n_embd=32, n_inner=48, n_layer=2, n_head=4, n_positions=64),
    "gpt-neox": _of("GPTNeoX", "CausalLM", **_ENCODER),
    "opt": _of("OPT", "SequenceClassification", ffn_dim=48, word_embed_proj_dim=32, **_SIZES),
    "bloom": _of("Bloom", "SequenceClassification", single=True, hidden_size=32, n_layer=2, n_head=4),
    "llama": _of("Llama", "SequenceClassification", **_DECODER),
    "mistral": _of("Mistral", "CausalLM", sliding_window=8, **_DECODER),
    "qwen2": _of("Qwen2", "TokenClassification", **_DECODER),
    "gemma": _of("Gemma", "CausalLM", head_dim=8, **_DECODER),
    "mixtral": _of(
        "Mixtral", "CausalLM", num_local_experts=3, num_experts_per_tok=2, output_router_logits=True,
        router_aux_loss_coef=0.1, **_DECODER,
    ),
    "mamba": _of("Mamba", "CausalLM", hidden_size=32, num_hidden_layers=2, state_size=4, time_step_rank=4),
    "t5": _of("T5", "ConditionalGeneration", **_T5),
    "umt5": _of("UMT5", "ConditionalGeneration", **_T5),
    "longt5": _of("LongT5", "ConditionalGeneration", local_radius=4, **_T5),
    "switch": _of(
        "SwitchTransformers", "ConditionalGeneration", single=True, num_experts=3, num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1, router_aux_loss_coef=0.1, router_z_loss_coef=0.1,
        arguments={"output_router_logits": True}, **_T5,
    ),
    "bart": _of("Bart", "ConditionalGeneration", **_BART),
    "mbart": _of("MBart", "ConditionalGeneration", **_BART),
    "pegasus": _of("Pegasus", "ConditionalGeneration", **_BART),
    "m2m100": _of("M2M100", "ConditionalGeneration", **_BART),
    "led": _of(
        "LED", "ConditionalGeneration", single=True, attention_window=8, max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=64, **{k: v for k, v in _BART.items() if k != "max_position_embeddings"},
    ),
    "clip": Architecture("CLIPConfig", "CLIPModel", "pairs", _CLIP),
    "whisper": Architecture(
        "WhisperConfig", "WhisperForConditionalGeneration", "speech",
        {
            **_BART, "num_mel_bins": 8, "max_source_positions": _FRAMES // 2, "max_target_positions": 64,
            "bos_token_id": 2, "eos_token_id": 3, "suppress_tokens": None, "begin_suppress_tokens": None,
        },
    ),
}  # fmt: skip
"""By the name that a study takes."""


def tiny_model(name: str, *, seed: int = 0) -> PreTrainedModel:
    """A model in training mode, in double precision unless its architecture is `single`.

    torch's global generators are left as they were.

    Args:
        name: one of `ARCHITECTURES`.
        seed: of the weights.
    """
    import transformers

    architecture = ARCHITECTURES[name]
    common: dict[str, Any] = {}
    if architecture.head != "pairs":
        common = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": 3}
    if architecture.head in ("classes", "tokens"):
        common["num_labels"] = CLASSES
    with weights_from(seed):
        config = getattr(transformers, architecture.config)(**{**common, **architecture.options})
        # grouped products have no double precision
        config._experts_implementation = "eager"
        model: PreTrainedModel = getattr(transformers, architecture.model)(config)
    return model.to(architecture.dtype).train()


def padded_batch(name: str, side: Side, *, seed: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Three examples: what the model is given besides masks, and the masks that are right.

    Labels are −100 at padding. Padding holds the pad token. All masks are int64 `[3, 10]`.

    Args:
        name: one of `ARCHITECTURES`.
        side: where padding stands, in encoder and decoder alike.
        seed: of tokens and labels.
    """
    architecture = ARCHITECTURES[name]
    generator = torch.Generator().manual_seed(seed)
    mask, other = _padded(LENGTHS, side), _padded(tuple(reversed(LENGTHS)), side)
    if architecture.head == "speech":
        return _speech(other, architecture.dtype, generator), {"decoder_attention_mask": other}
    ids = torch.where(mask == 1, _tokens(generator), PAD)
    given: dict[str, Any] = {"input_ids": ids, **architecture.arguments}
    if architecture.head == "classes":
        given["labels"] = torch.tensor([0, 1, 2])
    elif architecture.head == "tokens":
        given["labels"] = _labels(torch.randint(CLASSES, mask.shape, generator=generator), mask)
    elif architecture.head == "span":
        first = mask.argmax(1)
        given |= {"start_positions": first + 1, "end_positions": first + 4}
    elif architecture.head == "language":
        given["labels"] = _labels(ids, mask)
    elif architecture.head == "text to text":
        given["labels"] = _labels(_tokens(generator), other)
    else:
        images = torch.randn(len(LENGTHS), 3, _IMAGE, _IMAGE, generator=generator, dtype=architecture.dtype)
        last = (mask * torch.arange(TOKENS)).argmax(1)
        # the text of CLIP is read at the end-of-sequence token
        given |= {"input_ids": ids.scatter(1, last[:, None], 3), "pixel_values": images, "return_loss": True}
    return given, {"attention_mask": mask}


def _speech(mask: Tensor, dtype: torch.dtype, generator: torch.Generator) -> dict[str, Any]:
    """A transcript of audio that has no padding."""
    text = _tokens(generator)
    before = torch.cat([torch.full_like(text[:, :1], START), text[:, :-1]], 1)
    return {
        "input_features": torch.randn(len(LENGTHS), 8, _FRAMES, generator=generator, dtype=dtype),
        "decoder_input_ids": torch.where(mask == 1, before, PAD),
        "labels": _labels(text, mask),
    }


def _tokens(generator: torch.Generator) -> Tensor:
    return torch.randint(_FIRST, VOCABULARY, (len(LENGTHS), TOKENS), generator=generator)


def _labels(labels: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask == 1, labels, IGNORED_LABEL)


def _padded(lengths: tuple[int, ...], side: Side) -> Tensor:
    mask = (torch.arange(TOKENS) < torch.tensor(lengths)[:, None]).long()
    return mask if side == "right" else mask.flip(1)
