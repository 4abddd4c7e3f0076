"""New models that learn from plain text, of any width and depth, and their vocabulary.

They are stock transformers models without dropout, heads of 32 dimensions, feed-forward parts four times as wide.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from wtacrs.estimators import InputError
from wtacrs.integration.models.loading import small_t5, train_tokenizer
from wtacrs.integration.models.new_weights import weights_from
from wtacrs.integration.tasks.span_corruption import paragraphs
from wtacrs.validation.arguments import checked_integer
from wtacrs.validation.records.growth import Family

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HEAD_WIDTH = 32
_PARAGRAPHS = 30_000
"""Of a text, from which its vocabulary is made."""


def check_size(width: int, depth: int) -> None:
    """Refuse what no model can be built of.

    Raises:
        InputError: naming the size.
    """
    checked_integer(depth, "depth", least=1)
    if checked_integer(width, "width", least=HEAD_WIDTH) % HEAD_WIDTH:
        raise InputError(f"width={width} must be a multiple of {HEAD_WIDTH}, the width of a head")


def text_model(
    family: Family, width: int, depth: int, tokenizer: PreTrainedTokenizerBase, *, length: int, seed: int
) -> PreTrainedModel:
    """A model with random weights, which are a function of the seed and the sizes.

    Args:
        family: "t5" or "decoder", the latter with GPT-2's architecture.
        width: of the residual stream, a multiple of 32.
        depth: blocks; for T5 of encoder and decoder each.
        tokenizer: gives the vocabulary, with pad and eos tokens.
        length: positions that a decoder has.
        seed: of the weights; torch's global generators are left as they were.

    Raises:
        InputError: on sizes that cannot be built.
    """
    check_size(width, depth)
    heads = width // HEAD_WIDTH
    if family == "t5":
        return small_t5(
            tokenizer, seed=seed, d_model=width, d_ff=4 * width, layers=depth, decoder_layers=depth, heads=heads,
            dropout=0.0,
        )  # fmt: skip
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=length, n_embd=width, n_layer=depth, n_head=heads, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        loss_type="ForCausalLM",
    )  # fmt: skip
    with weights_from(seed):
        return GPT2LMHeadModel(config)


def corpus_tokenizer(file: Path, pieces: int, sentinels: int = 0) -> PreTrainedTokenizerBase:
    """A vocabulary from the beginning of a text.

    Args:
        file: as in `read_pieces`.
        pieces: of the vocabulary.
        sentinels: `<extra_id_0>` and so on, beside the pieces, for span corruption.

    Raises:
        InputError: if the file cannot be read or has no text, or for fewer than 300 pieces.
    """
    texts = itertools.islice(itertools.chain.from_iterable(paragraphs(file)), _PARAGRAPHS)
    tokenizer = train_tokenizer(texts, pieces)
    named = [f"<extra_id_{i}>" for i in range(sentinels)]
    tokenizer.add_special_tokens({"additional_special_tokens": named})
    return tokenizer
