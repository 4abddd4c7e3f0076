"""Steps whose masks do not fit the loss, or might be taken for another sequence's; each after a report of a user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    CLIPConfig,
    CLIPModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from support.decoders import gpt2, llama, opt

VOCABULARY = 60
LENGTH = 12
LIVE = (3, 4, 3, 5)
"""Tokens of the four examples that are no padding."""


class Situation(NamedTuple):
    """A model in double precision without dropout, one loss, and the layer that was found to be biased.

    Attributes:
        model: in training mode, not converted.
        loss: of one forward pass.
        layer: whose mean is off without a floor.
        slope: what ⟨E dW, dW⟩ / ‖dW‖² of it is at most then; 1 where the mask that it uses is right.
        called: the loss of whatever is called in place of the model.
    """

    model: nn.Module
    loss: Callable[[], Tensor]
    layer: str
    slope: float
    called: Callable[[nn.Module], Tensor] | None = None

    def through(self, wrapper: nn.Module) -> Tensor:
        """The loss with the model called through a wrapper of it."""
        assert self.called is not None
        return self.called(wrapper)


def padding(lengths: tuple[int, ...] = LIVE, size: int = LENGTH) -> Tensor:
    """int64 `[batch, positions]`, 1 for tokens, padded on the right."""
    return (torch.arange(size) < torch.tensor(lengths)[:, None]).long()


def _tokens(*shape: int) -> Tensor:
    return torch.randint(5, VOCABULARY - 2, shape, generator=torch.Generator().manual_seed(len(shape)))


def _bert(kind: Any = BertModel) -> Any:
    torch.manual_seed(0)
    return kind(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def _t5(**others: Any) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(
        T5Config(**sizes, dropout_rate=0.0, decoder_start_token_id=0, **others)
    ).train()


def _gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return GPT2LMHeadModel(
        GPT2Config(
            **sizes,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).train()


class BiEncoder(nn.Module):
    """One BERT for queries and documents, whose mask has a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = _bert()

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.bert(ids, mask).last_hidden_state
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, doc_ids: Tensor, doc_mask: Tensor) -> Tensor:
        queries, documents = self.embed(input_ids, attention_mask), self.embed(doc_ids, doc_mask)
        return cross_entropy(queries @ documents.T, torch.arange(len(doc_ids)))


def two_masks() -> Situation:
    """Each call of BERT has its own mask."""
    model, ids = BiEncoder().double(), _tokens(2, 4, LENGTH)
    batch = {"input_ids": ids[0], "attention_mask": padding(), "doc_ids": ids[1]}
    full = torch.ones(4, LENGTH, dtype=torch.long)
    return Situation(
        model, lambda: model(**batch, doc_mask=full), "bert.encoder.layer.1.attention.self.query", 1.0
    )


class _MeanEncoder(nn.Module):
    """Takes ids alone: what it attends to is no argument of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.mix = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        return (self.mix(self.embed(ids)) * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


class _TwoSequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = _MeanEncoder()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, doc_ids: Tensor, doc_mask: Tensor) -> Tensor:
        queries, documents = self.encoder(input_ids, attention_mask), self.encoder(doc_ids, doc_mask)
        return cross_entropy(queries @ documents.T, torch.arange(len(doc_ids)))


def one_mask_for_two() -> Situation:
    """The wrapper's mask fits the documents too, which have another."""
    model, ids = _TwoSequences().double(), _tokens(2, 4, LENGTH)
    batch = {"input_ids": ids[0], "attention_mask": padding(), "doc_ids": ids[1]}
    full = torch.ones(4, LENGTH, dtype=torch.long)
    return Situation(model, lambda: model(**batch, doc_mask=full), "encoder.mix.0", 0.75)


class _Tuner(nn.Module):
    """The usual wrapper of tutorials: targets have a name of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _t5()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, lm_labels: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, labels=lm_labels).loss


def wrapped_t5() -> Situation:
    """Source and target of one length."""
    model, ids = _Tuner().double(), _tokens(2, 4, LENGTH)
    batch = {"input_ids": ids[0], "attention_mask": padding(), "lm_labels": ids[1]}
    layer = "model.decoder.block.1.layer.2.DenseReluDense.wi"
    return Situation(model, lambda: model(**batch), layer, 1.0, lambda wrapper: wrapper(**batch))


def t5_of_decoder_ids() -> Situation:
    """No labels: nothing but the source's mask, of the target's shape, and a loss of the user's own."""
    model, ids = _t5().double(), _tokens(2, 4, LENGTH)
    batch = {"input_ids": ids[0], "attention_mask": padding(), "decoder_input_ids": ids[1]}

    def loss(called: nn.Module = model) -> Tensor:
        return cross_entropy(called(**batch).logits.flatten(0, 1), ids[1].roll(-1, 1).flatten())

    return Situation(model, loss, "decoder.block.1.layer.2.DenseReluDense.wi", 0.35, loss)


def clip_shape(tokens: int = 17) -> Situation:
    """As many text tokens as rows of the image: 16 patches and the class token."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": 20, "bos_token_id": 58, "eos_token_id": 59}
    image = {"image_size": 32, "patch_size": 8}
    model = CLIPModel(
        CLIPConfig(text_config=text | sizes, vision_config=image | sizes, projection_dim=16)
    ).double()
    lengths = (3, 5, 4, 7)
    ids = _tokens(4, tokens)
    ids[torch.arange(4), torch.tensor(lengths) - 1] = 59
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = {"input_ids": ids, "attention_mask": padding(lengths, tokens), "pixel_values": pixels}
    layer = "vision_model.encoder.layers.1.self_attn.v_proj"
    return Situation(model.train(), lambda: model(**batch, return_loss=True).loss, layer, 0.35)


def switch() -> Situation:
    """The router's own loss reads every row."""
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
    experts = {
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
        "num_experts": 4,
        "expert_capacity": 64,
    }
    model = (
        SwitchTransformersForConditionalGeneration(
            SwitchTransformersConfig(
                vocab_size=VOCABULARY,
                dropout_rate=0.0,
                router_jitter_noise=0.0,
                decoder_start_token_id=0,
                router_aux_loss_coef=1.0,
                **sizes,
                **experts,
            )
        )
        .double()
        .train()
    )
    for module in model.modules():
        if hasattr(module, "classifier"):
            module.dtype = torch.float64  # else a router casts itself to single precision
    mask = padding()
    batch = {"input_ids": _tokens(4, LENGTH) * mask, "attention_mask": mask, "labels": _tokens(4, 8)}
    layer = "encoder.block.1.layer.1.mlp.router.classifier"
    return Situation(model, lambda: model(**batch, output_router_logits=True).loss, layer, 0.12)


def smoothed_labels() -> Situation:
    """A trainer pops the labels, and asks for the loss itself; padded on the left."""
    from transformers.trainer_pt_utils import LabelSmoother

    model, mask = _gpt2().double(), padding().flip(1)
    ids = _tokens(4, LENGTH) * mask
    labels = ids.masked_fill(mask == 0, -100)

    def loss() -> Tensor:
        output = model(input_ids=ids, attention_mask=mask)
        return LabelSmoother(epsilon=0.1)(output, labels.clone(), shift_labels=True)

    return Situation(model, loss, "transformer.h.1.mlp.c_proj", 0.7)


class _LastState(nn.Module):
    """An LSTM over all positions of BERT, and its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = _bert()
        self.rnn, self.head = nn.LSTM(32, 32, batch_first=True), nn.Linear(32, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        hidden = self.bert(input_ids, attention_mask).last_hidden_state
        return cross_entropy(self.head(self.rnn(hidden)[1][0][0]), labels)


def own_head() -> Situation:
    model = _LastState().double()
    batch = {"input_ids": _tokens(4, LENGTH), "attention_mask": padding(), "labels": torch.tensor([0, 1, 1, 0])}
    return Situation(model, lambda: model(**batch), "bert.encoder.layer.1.intermediate.dense", 0.05)


class _TorchConvention(nn.Module):
    """`attention_mask` is True for padding, as in `nn.TransformerEncoder`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(32, 2)

    def forward(self, ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        hidden = self.encoder(self.embed(ids), src_key_padding_mask=attention_mask)
        live = (~attention_mask)[..., None]
        return cross_entropy(self.head((hidden * live).sum(1) / live.sum(1)), labels)


def inverted() -> Situation:
    model = _TorchConvention().double()
    masked = padding((8, 9, 10, 7)) == 0
    labels = torch.tensor([0, 1, 1, 0])
    return Situation(model, lambda: model(_tokens(4, LENGTH), masked, labels), "encoder.layers.0.linear1", 1e-9)


def _of_decoder(build: Callable[[], nn.Module]) -> Callable[[], Situation]:
    def situation() -> Situation:
        torch.manual_seed(0)
        model = build().double().train()
        ids = torch.randint(2, VOCABULARY, (3, 10), generator=torch.Generator().manual_seed(1))
        batch = {"input_ids": ids, "attention_mask": padding((5, 10, 3), 10), "labels": torch.tensor([0, 1, 0])}
        return Situation(model, lambda: model(**batch).loss, "score", 0.5)

    situation.__name__ = f"{build.__name__}_reads_its_last_token"
    situation.__doc__ = "Told by the ids, where the mask calls it padding."
    return situation


def deberta_padded_left() -> Situation:
    """The pooler reads the first position, which is padding."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = DebertaV2Config(
        vocab_size=VOCABULARY,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pooler_dropout=0.0,
        **sizes,
    )
    model = DebertaV2ForSequenceClassification(config).double().train()
    return _classified(model, "deberta.encoder.layer.1.intermediate.dense")


def bert_padded_left() -> Situation:
    """The pooler reads the first position, which is padding."""
    model = _bert(BertForSequenceClassification).double().train()
    return _classified(model, "bert.encoder.layer.1.intermediate.dense")


def _classified(model: nn.Module, layer: str) -> Situation:
    mask = padding().flip(1)
    batch = {"input_ids": _tokens(4, LENGTH), "attention_mask": mask, "labels": torch.tensor([0, 1, 1, 0])}
    return Situation(model, lambda: model(**batch).loss, layer, 1e-9)


def question_answering() -> Situation:
    """The softmax over positions takes padding in."""
    model = _bert(BertForQuestionAnswering).double().train()
    places = torch.tensor([0, 1, 2, 1])
    batch = {"input_ids": _tokens(4, LENGTH), "attention_mask": padding()}
    places_of = {"start_positions": places, "end_positions": places + 1}
    return Situation(model, lambda: model(**batch, **places_of).loss, "qa_outputs", 0.85)


def flattened_in_another_order() -> Situation:
    """As many rows as tokens, but by position first."""

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.mix = nn.Embedding(VOCABULARY, 16), nn.Linear(16, 8)

        def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
            rows = self.mix(self.embed(ids).transpose(0, 1).reshape(-1, 16))
            live = attention_mask.t().reshape(-1, 1).double()
            return (rows.square() * live).sum()

    model = Transposed().double()
    return Situation(model, lambda: model(_tokens(4, LENGTH), padding()), "mix", 0.4)


SITUATIONS: tuple[Callable[[], Situation], ...] = (
    two_masks,
    one_mask_for_two,
    wrapped_t5,
    t5_of_decoder_ids,
    clip_shape,
    switch,
    smoothed_labels,
    own_head,
    inverted,
    *(_of_decoder(build) for build in (gpt2, opt, llama)),
    deberta_padded_left,
    bert_padded_left,
    question_answering,
    flattened_in_another_order,
)
