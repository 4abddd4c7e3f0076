"""How many of its rows a node of a binary tree holds: laws go up the tree, samples and messages down.

The rows are independent events, the leaves, filled up to a power of two with events that never happen. The law of
a node's count is the convolution of its children's. Given the count of a node, its left child holds t with probability
proportional to `P(left = t) P(right = count − t)`: one uniform number for each node divides the sample down to the
rows. The other way a message `P(all = r | node holds j)` comes down to every node, `D_left(j) = Σ_t P(right = t)
D(j + t)`, and gives the probability of every row given the size r of the whole sample. (Messages on such a tree: Tarlow,
Swersky, Zemel, Adams & Frey, "Fast Exact Inference for Recursive Cardinality Models", UAI 2012.)

Why it is exact and cheap:

- All numbers are sums of products of probabilities: nothing cancels, so that small ones are as precise, relatively, as
  large ones. A convolution by fast Fourier transform would be precise beside the largest number only.
- A node of s leaves keeps its law within `t = 4√s + 12` of its mean. What is left out has a probability of at most
  `2 exp(−t²/(2σ² + 2t/3))` (Bernstein's inequality, σ² ≤ s/4), less than 3e-14, and much less where σ² is small.
- So a level of n/s nodes takes `64·n` multiplications or so, however large s is, and all nodes of a level are computed
  side by side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

# laws of more numbers than `_SMALL` are convolved by matrix products, in blocks of so many places
_SMALL = 9
_BLOCK = 8


class Level(NamedTuple):
    """The nodes at one height of the tree, from left to right.

    Attributes:
        laws: [kind, node, c], the probability that the node holds `first[node] + c` rows. Kind 0 is the plain law; with
            two kinds, kind 1 is the mean of `Σ_i mark_i I_i` on that event.
        first: the least count that is kept.
    """

    laws: Float64[Tensor, "kinds nodes c"]
    first: Int[Tensor, " nodes"]


class Counts(NamedTuple):
    """How many rows the nodes of a level hold, and whether the marked row is among them."""

    held: Int[Tensor, " nodes"]
    marked: Bool[Tensor, " nodes"]


def splits(n: int) -> int:
    """Nodes with two children in the tree of n rows: a uniform number for each."""
    return _leaves(n) - 1


def laws_of(
    present: Float64[Tensor, " n"], absent: Float64[Tensor, " n"], marks: Float64[Tensor, " n"] | None = None
) -> list[Level]:
    """The levels from the leaves to the root, for events of probability `present`; `absent` is 1 − present.

    Args:
        present: with a sum that is near to the size of the samples: what is asked of the tree must be near its means.
        absent: given, since a difference to 1 loses digits.
        marks: of the rows, for laws of two kinds.
    """
    more = _leaves(present.shape[0]) - present.shape[0]
    present, absent = (
        torch.nn.functional.pad(present, (0, more)),
        torch.nn.functional.pad(absent, (0, more), value=1.0),
    )
    laws = torch.stack([absent, present], 1).unsqueeze(0)
    if marks is not None:
        marked = present * torch.nn.functional.pad(marks, (0, more))
        laws = torch.cat([laws, torch.stack([torch.zeros_like(marked), marked], 1).unsqueeze(0)])
    levels = [Level(laws, torch.zeros(present.shape, dtype=torch.int64, device=present.device))]
    while levels[-1].first.shape[0] > 1:
        levels.append(_joined(levels[-1], present))
    return levels


def sampled(
    levels: list[Level], size: Int[Tensor, ""], uniforms: Float64[Tensor, " q"], n: int
) -> Bool[Tensor, " n"]:
    """Which rows are in a sample of `size` rows, from `splits(n)` numbers in [0, 1), the root's first."""
    return _divided(levels, size, uniforms, len(levels) - 1).held[:n] > 0


def cuts(levels: list[Level], size: Int[Tensor, ""], chosen: Float64[Tensor, " j"]) -> Float64[Tensor, " c"]:
    """Where the next number changes how its node is divided, given the numbers of the nodes before it."""
    depth = (chosen.shape[0] + 1).bit_length() - 1
    counts = _divided(levels, size, chosen, depth)
    node = chosen.shape[0] + 1 - (1 << depth)
    ends = _shares(levels[len(levels) - 2 - depth], counts)[node].cumsum(0)
    return ends / torch.where(ends[-1:] > 0, ends[-1:], 1.0)


def messages(levels: list[Level], size: Int[Tensor, ""], n: int) -> Float64[Tensor, "n 2"]:
    """`P(all = size | row i is absent)` and the same for present, but for a factor of each row."""
    root = levels[-1]
    place = torch.arange(root.laws.shape[2], device=size.device)
    message = (place == size - root.first).double().unsqueeze(0)
    for level, above in zip(levels[:-1][::-1], levels[:0:-1], strict=True):
        message = _sent_down(level, above.first, message)
    return message[:n]


def macs_up(n: int, kinds: int = 1) -> int:
    """Multiplications in the matrix products of `laws_of`."""
    return sum(pairs * (2 * kinds - 1) * _macs(_width(s), _width(2 * s)) for s, pairs in _pairs(n))


def macs_down(n: int) -> int:
    """Multiplications in the matrix products of `messages`."""
    return sum(pairs * 2 * _macs(_width(s), _width(s)) for s, pairs in _pairs(n))


def _macs(v: int, w: int) -> int:
    return 0 if v <= _SMALL else -(-v // _BLOCK) * _BLOCK * (w + _BLOCK - 1)


def _pairs(n: int) -> list[tuple[int, int]]:
    """For every level but the root's, the leaves of its nodes and how many pairs of nodes it has."""
    depth = _leaves(n).bit_length() - 1
    return [(1 << height, _leaves(n) >> (height + 1)) for height in range(depth)]


def _width(leaves: int) -> int:
    return min(leaves + 1, 2 * (math.ceil(4 * math.sqrt(leaves)) + 12) + 1)


def _leaves(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _divided(levels: list[Level], size: Int[Tensor, ""], uniforms: Float64[Tensor, " q"], depth: int) -> Counts:
    """What the nodes `depth` levels below the root hold."""
    law, first = levels[-1].laws[-1], levels[-1].first
    chance = law.gather(1, (size - first).clamp(0, law.shape[1] - 1).reshape(1, 1)).squeeze(1)
    # no row can be the marked one if all marks are 0
    counts, used = Counts(size.reshape(1), (chance > 0) & (levels[-1].laws.shape[0] > 1)), 0
    for level in levels[:-1][::-1][:depth]:
        nodes = counts.held.shape[0]
        counts = _divide(level, counts, uniforms[used : used + nodes])
        used += nodes
    return counts


def _joined(below: Level, present: Float64[Tensor, " m"]) -> Level:
    """The level above."""
    left, right = below.laws[:, 0::2].flip(2), below.laws[:, 1::2]
    start = below.first[0::2] + below.first[1::2]
    nodes, leaves, v = start.shape[0], present.shape[0] // start.shape[0], left.shape[2]
    width = _width(leaves)
    if width > leaves:
        first = start
        right = torch.nn.functional.pad(right, (v - 1, v - 1))
    else:
        middle = present.reshape(nodes, leaves).sum(1).round().long()
        first = (middle - width // 2).clamp(0, leaves + 1 - width)
        right = _moved(right, below.first[1::2], first - below.first[0::2] - (v - 1), width + v - 1)
    laws = _correlated(left.transpose(0, 1), right[0]).transpose(0, 1)
    if left.shape[0] == 2:
        marked_right = _correlated(left[:1].transpose(0, 1), right[1]).squeeze(1)
        laws = torch.stack([laws[0], laws[1] + marked_right])
    return Level(laws, first)


def _moved(
    values: Float64[Tensor, "*kinds nodes v"],
    start: Int[Tensor, " nodes"],
    first: Int[Tensor, " nodes"],
    width: int,
) -> Float64[Tensor, "*kinds nodes w"]:
    """`width` values from `first` on, of values that begin at `start`; 0 beyond their ends."""
    place = (first - start).unsqueeze(1) + torch.arange(width, device=first.device)
    inside = (place >= 0) & (place < values.shape[-1])
    place = place.clamp(0, values.shape[-1] - 1).expand(*values.shape[:-1], width)
    return torch.where(inside, values.gather(-1, place), 0.0)


def _shares(level: Level, counts: Counts) -> Float64[Tensor, "nodes c"]:
    """The divisions of every node, in proportion: counts of the left child, with the mark on the right, then left."""
    left, right = level.laws[:, 0::2], level.laws[:, 1::2]
    width = left.shape[2]
    # entry t belongs to counts first + t on the left; what is left for the right falls as t rises
    last = counts.held - level.first[0::2] - (width - 1)
    right = _moved(right, level.first[1::2], last, width).flip(2)
    plain = left[0] * right[0]
    if level.laws.shape[0] == 1:
        return plain
    marked = counts.marked.unsqueeze(1)
    on_the_right = torch.where(marked, left[0] * right[1], plain)
    return torch.cat([on_the_right, torch.where(marked, left[1] * right[0], 0.0)], 1)


def _divide(level: Level, counts: Counts, uniforms: Float64[Tensor, " nodes"]) -> Counts:
    shares = _shares(level, counts)
    ends = shares.cumsum(1)
    hit = (shares > 0) & (ends > uniforms.unsqueeze(1) * ends[:, -1:])
    # rounding may leave no hit; the largest share is always possible
    choice = torch.where(hit.any(1), hit.to(torch.uint8).argmax(1), shares.argmax(1))
    width = level.laws.shape[2]
    left = level.first[0::2] + choice % width
    on_the_left = counts.marked & (choice >= width)
    held = torch.stack([left, counts.held - left], 1).flatten()
    return Counts(held, torch.stack([on_the_left, counts.marked & ~on_the_left], 1).flatten())


def _sent_down(
    level: Level, first: Int[Tensor, " parents"], message: Float64[Tensor, "parents v"]
) -> Float64[Tensor, "nodes c"]:
    """The messages to the children, each scaled to a largest number of 1."""
    children = level.laws[0].unflatten(0, (-1, 2))
    width = children.shape[2]
    if message.shape[1] < 2 * width - 1:
        message = _moved(message, first, level.first[0::2] + level.first[1::2], 2 * width - 1)
    sent = _correlated(children.flip(1), message).flatten(0, 1)
    largest = sent.amax(1, keepdim=True)
    return sent / torch.where(largest > 0, largest, 1.0)


def _correlated(
    several: Float64[Tensor, "nodes many v"], one: Float64[Tensor, "nodes u"]
) -> Float64[Tensor, "nodes many w"]:
    """`Σ_j several[j] one[t + j]` for t from 0 to w − 1, u = v + w − 1, by products of positive numbers alone."""
    nodes, many, v = several.shape
    w = one.shape[1] - v + 1
    if v <= _SMALL:
        out = several.new_zeros((nodes, many, w))
        for place in range(v):
            out.addcmul_(several[:, :, place : place + 1], one[:, place : place + w].unsqueeze(1))
        return out
    # j in blocks: `one` from every block on, then each place within a block shifted by its own
    blocks = -(-v // _BLOCK)
    length = w + _BLOCK - 1
    more = blocks * _BLOCK - v
    in_blocks = torch.nn.functional.pad(several, (0, more)).unflatten(2, (blocks, _BLOCK))
    windows = torch.nn.functional.pad(one, (0, more)).unfold(1, length, _BLOCK).contiguous()
    by_place = torch.bmm(in_blocks.transpose(2, 3).flatten(1, 2), windows)
    skewed = torch.nn.functional.pad(by_place.reshape(nodes, many, -1), (0, _BLOCK)).unflatten(
        2, (_BLOCK, length + 1)
    )
    return skewed[..., :w].sum(2)
