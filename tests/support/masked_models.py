"""Random small models whose loss knows nothing of their masks: layers, heads and layouts, mixed by hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTH, VOCABULARY, CLASSES = 6, 12, 3


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(torch.tanh(self.wide(x)))


class Flattened(MLP):
    """Rows without batch and positions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, WIDTH)).reshape(x.shape)


class PositionsFirst(MLP):
    """As XLNet lays them out; with as many positions as examples the shape says nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1).contiguous()).transpose(0, 1)


class Routed(nn.Module):
    """Rows sorted by a gate: as many as the mask has, but others."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.expert = nn.Linear(WIDTH, 1), MLP()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, WIDTH)
        gates = self.gate(rows).squeeze(-1)
        order = gates.argsort()
        routed = self.expert(rows[order])
        return (routed[order.argsort()] * gates.sigmoid()[:, None]).reshape(x.shape)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        read = x if memory is None else memory
        weights = (self.q(x) @ self.k(read).transpose(1, 2)).softmax(-1)
        return self.o(weights @ self.v(read))


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Conv1d(WIDTH, WIDTH, 3, padding=1), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mix(x.transpose(1, 2)).transpose(1, 2))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTM(WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(x)[0])


class InPlace(MLP):
    """Changes what a layer returned."""

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(torch.relu_(self.wide(x)))


BLOCKS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (MLP, Flattened, PositionsFirst, Routed, Attention, Convolution, Recurrent, InPlace)
}
HEADS = ("first", "last", "mean", "largest", "tokens")


@dataclass(frozen=True)
class Shape:
    """What `MaskedModel` is made of."""

    blocks: tuple[str, ...]
    head: str
    decoder: bool = False
    checkpointed: bool | None = None
    """None for no checkpointing, else whether it is reentrant."""


class Encoder(nn.Module):
    """Takes a mask, and does not look at it."""

    def __init__(self, blocks: tuple[str, ...], checkpointed: bool | None) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(BLOCKS[name]() for name in blocks)
        self.checkpointed = checkpointed

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = x + (block(x) if self.checkpointed is None else self.again(block, x))
        return x

    def again(self, block: nn.Module, x: Tensor) -> Tensor:
        found: Tensor = checkpoint(block, x, use_reentrant=self.checkpointed)
        return found


class MaskedModel(nn.Module):
    """An encoder and a head, or an encoder and a decoder of as many positions; the loss reads any row."""

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(shape.blocks, shape.checkpointed)
            self.decoder = Encoder(shape.blocks[:1], None) if shape.decoder else None
            self.cross = Attention() if shape.decoder else None
            self.out = nn.Linear(WIDTH, CLASSES)
        self.config = SimpleNamespace(is_encoder_decoder=shape.decoder)
        self.head = shape.head
        self.double().train()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Any:
        x = self.encoder(input_ids, attention_mask)
        if self.decoder is not None and self.cross is not None:
            y = self.decoder(decoder_input_ids, decoder_attention_mask)
            x = y + self.cross(y, x)
        logits = self.out(_pooled(x, self.head))
        assert targets is not None
        wanted = targets if self.head == "tokens" else targets[:, 0]
        loss = nn.functional.cross_entropy(logits.reshape(-1, CLASSES), wanted.reshape(-1))
        return SimpleNamespace(loss=loss, logits=logits) if self.encoder.checkpointed is None else _Output(loss)


class _Output(dict):
    """What activation checkpointing finds the loss in."""

    def __init__(self, loss: Tensor) -> None:
        super().__init__(loss=loss)
        self.loss = loss


def _pooled(x: Tensor, head: str) -> Tensor:
    pooled = {"first": x[:, 0], "last": x[:, -1], "mean": x.mean(1), "largest": x.amax(1), "tokens": x}
    return pooled[head]


shapes = st.builds(
    Shape,
    blocks=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3).map(tuple),
    head=st.sampled_from(HEADS),
    decoder=st.booleans(),
    checkpointed=st.sampled_from([None, None, True, False]),
)


def random_batch(shape: Shape, examples: int, positions: int, seed: int) -> dict[str, Tensor]:
    """Tokens, targets that the loss reads, and masks and labels that it does not: each random by itself."""
    generator = torch.Generator().manual_seed(seed)

    def integers(below: int) -> Tensor:
        return torch.randint(below, (examples, positions), generator=generator)

    def mask() -> Tensor:
        live = torch.rand((), generator=generator)
        return (torch.rand(examples, positions, generator=generator) < live).long()

    batch = {"input_ids": integers(VOCABULARY), "targets": integers(CLASSES), "attention_mask": mask()}
    if shape.decoder:
        batch |= {"decoder_input_ids": integers(VOCABULARY), "decoder_attention_mask": mask()}
    if torch.rand((), generator=generator) < 0.5:
        batch["labels"] = torch.where(mask() == 1, integers(CLASSES), -100)
    return batch


def forward_and_backward(model: nn.Module, batch: Mapping[str, Tensor]) -> None:
    model.zero_grad()
    model(**batch).loss.backward()
