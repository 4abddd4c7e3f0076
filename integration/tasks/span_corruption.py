"""Span corruption, what T5 is pre-trained on: spans of a text are cut out, and are to be written in order.

Of n tokens a share `DENSITY` is cut out in spans of `MEAN_SPAN` tokens on average. Each span leaves one sentinel in the
input; the target holds the sentinels, each followed by its span, and a last sentinel (Raffel et al., "Exploring the
limits of transfer learning with a unified text-to-text transformer", arXiv 1910.10683, section 3.1.4).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.arguments import checked_integer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DENSITY = 0.15
"""Share of the tokens that are cut out."""

MEAN_SPAN = 3.0
"""Tokens of a span, on average."""

_BATCH = 1_000


class SpanCorruption(Dataset[dict[str, list[int]]]):
    """Pieces of a text, each with spans cut out: a function of the seed and the piece's number.

    Args:
        pieces: token ids `[pieces, length]`, int64.
        sentinels: ids of the sentinels in their order; as many as a piece has spans, and one more.
        eos: the id that ends input and target.
        seed: of the spans.

    Raises:
        InputError: if there are too few sentinels.
    """

    def __init__(self, pieces: Tensor, sentinels: Sequence[int], eos: int, *, seed: int = 0) -> None:
        needed = spans_of(pieces.shape[1])[1] + 1
        if len(sentinels) < needed:
            raise InputError(
                f"tokenizer: pieces of {pieces.shape[1]} tokens need {needed} sentinels <extra_id_0> …, "
                f"it has {len(sentinels)}; a shorter max_length needs fewer"
            )
        self._pieces, self._sentinels, self._eos, self._seed = pieces, list(sentinels), eos, seed

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        tokens = self._pieces[index].tolist()
        inputs, targets = corrupt(tokens, self._sentinels, generator)
        inputs.append(self._eos)
        return {"input_ids": inputs, "attention_mask": [1] * len(inputs), "labels": [*targets, self._eos]}


def spans_of(length: int) -> tuple[int, int]:
    """How many of `length` ≥ 2 tokens are cut out, and in how many spans; at least one, and not all."""
    cut = min(max(round(length * DENSITY), 1), length - 1)
    return cut, min(max(round(cut / MEAN_SPAN), 1), length - cut)


def corrupt(
    tokens: Sequence[int], sentinels: Sequence[int], generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """Input and target of one piece of text, without the ids that end them.

    Kept and cut tokens alternate, kept first; both are divided at places that are drawn uniformly, so that every division
    into spans of at least one token is as likely as any other.
    """
    cut, spans = spans_of(len(tokens))
    inputs: list[int] = []
    targets: list[int] = []
    place = 0
    parts = zip(
        _parts(len(tokens) - cut, spans, generator), _parts(cut, spans, generator), sentinels, strict=False
    )
    for kept, missing, sentinel in parts:
        inputs += [*tokens[place : place + kept], sentinel]
        targets += [sentinel, *tokens[place + kept : place + kept + missing]]
        place += kept + missing
    return inputs, [*targets, sentinels[spans]]


def _parts(total: int, parts: int, generator: torch.Generator) -> list[int]:
    """`total` as a sum of so many numbers from 1, all sums equally likely."""
    ends = torch.randperm(total - 1, generator=generator)[: parts - 1].add(1).sort().values.tolist()
    return [end - start for start, end in zip([0, *ends], [*ends, total], strict=True)]


def piece_length(max_length: int) -> int:
    """The longest piece whose corrupted input, with the id that ends it, has at most `max_length` tokens.

    Raises:
        InputError: if `max_length` has no room for text.
    """
    checked_integer(max_length, "max_length", least=4)

    def read(length: int) -> int:
        cut, spans = spans_of(length)
        return length - cut + spans + 1

    length = 2
    while read(length + 1) <= max_length:
        length += 1
    return length


def read_pieces(
    file: Path, tokenizer: PreTrainedTokenizerBase, length: int, *, limit: int | None = None
) -> Tensor:
    """A text as pieces of `length` tokens, `[pieces, length]`: its paragraphs one after the other; the rest is left out.

    Args:
        file: UTF-8, a paragraph per line; gzip if its name ends in `.gz`.
        tokenizer: of the model.
        length: tokens of a piece.
        limit: pieces at most.

    Raises:
        InputError: if the file cannot be read, or holds less than one piece.
    """
    pieces: list[list[int]] = []
    rest: list[int] = []
    for several in paragraphs(file):
        for ids in tokenizer(several, add_special_tokens=False)["input_ids"]:
            rest += ids
        whole = len(rest) // length
        pieces += [rest[i * length : (i + 1) * length] for i in range(whole)]
        rest = rest[whole * length :]
        if limit is not None and len(pieces) >= limit:
            break
    if not pieces:
        raise InputError(f"corpus={file} has fewer than {length} tokens, which one piece needs")
    return torch.tensor(pieces[:limit])


def paragraphs(file: Path) -> Iterator[list[str]]:
    """The paragraphs of a text, many at a time.

    Raises:
        InputError: if the file cannot be read.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    batch: list[str] = []
    try:
        with opened(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                if text := line.strip():
                    batch.append(text)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"corpus={file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if batch:
        yield batch


def sentinels_of(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the sentinels `<extra_id_0>`, `<extra_id_1>` … that a tokenizer knows."""
    known = tokenizer.get_vocab()
    found: list[int] = []
    while (token := f"<extra_id_{len(found)}>") in known:
        found.append(known[token])
    return found


def corpus_files(folder: Path) -> tuple[Path, Path]:
    """The one file for training and the one for validation in a folder.

    Raises:
        InputError: if there is not one of each.
    """
    if not folder.is_dir():
        raise InputError(f"corpus={folder} is no folder")
    found = []
    for part in ("train", "valid"):
        files = sorted(path for end in ("txt", "txt.gz") for path in folder.glob(f"*{part}*.{end}"))
        if len(files) != 1:
            raise InputError(
                f"corpus={folder}: one file *{part}*.txt or *{part}*.txt.gz is needed, there are {len(files)}"
            )
        found.append(files[0])
    return found[0], found[1]
