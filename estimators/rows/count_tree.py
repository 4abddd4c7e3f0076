"""How many of its rows a node of a binary tree holds: laws go up the tree, samples and messages down.

The rows are independent events, the leaves, filled up to a power of two with events that never happen. The law of a node's count is the
convolution of its children's. Given the count of a node, its left child holds t with probability proportional to
`P(left = t) P(right = count − t)`: one uniform number for each node divides the sample down to the rows. The other
way a message `P(all = r | node holds j)` comes down to every node, `D_left(j) = Σ_t P(right = t) D(j + t)`, and gives
the probability of every row given the size r of the whole sample. (The tree is that of belief propagation with counting
factors: Tarlow, Swersky, Zemel, Adams & Frey, "Fast Exact Inference for Recursive Cardinality Models", UAI 2012.)

Why it is exact and cheap:

- All numbers are sums of products of probabilities: nothing cancels, so that small ones are as precise, relatively, as
  large ones. A convolution by fast Fourier transform would be precise beside the largest number only.
- A node of s leaves keeps its law within `5√s + 12` of its mean. What is left out has a probability of at most
  `2 exp(−t²/(2σ² + 2t/3))` with `t = 5√s + 12` (Bernstein's inequality, σ² ≤ s/4), less than 1e-17; where the
  spread is small, it is less again by far.

With n leaves that makes `O(n^1.5)` multiplications where nodes are small, then 400·n or so for each doubling.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

# laws of more numbers than `_SMALL` are convolved by matrix products, in blocks of so many places
_SMALL = 17
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
    for level, above in zip(levels[len(levels) - 2 :: -1], levels[:0:-1], strict=True):
        message = _sent_down(level, above.first, message)
    return message[:n]


def macs_up(n: int, kinds: int = 1) -> int:
    """Multiplications in the matrix products of `laws_of`."""
    widths = _widths(n)
    return sum(parents * (2 * kinds - 1) * _convolution_macs(v, v) for parents, v in widths)


def macs_down(n: int) -> int:
    """Multiplications in the matrix products of `messages`."""
    return sum(parents * 2 * _convolution_macs(v, 2 * v - 1) for parents, v in _widths(n))


def _convolution_macs(v: int, w: int) -> int:
    blocks = -(-v // _BLOCK)
    return 0 if v <= _SMALL else _BLOCK * blocks * (w + (blocks - 1) * _BLOCK)


def _widths(n: int) -> list[tuple[int, int]]:
    """For every level but the root's, how many pairs of nodes it has and how many numbers a law of theirs."""
    depth = _leaves(n).bit_length() - 1
    return [(_leaves(n) >> (height + 1), _width(1 << height)) for height in range(depth)]


def _width(leaves: int) -> int:
    return min(leaves + 1, 2 * (math.ceil(5 * math.sqrt(leaves)) + 12) + 1)


def _leaves(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _divided(levels: list[Level], size: Int[Tensor, ""], uniforms: Float64[Tensor, " q"], depth: int) -> Counts:
    """What the nodes `depth` levels below the root hold."""
    law, first = levels[-1].laws[-1], levels[-1].first
    chance = law.gather(1, (size - first).clamp(0, law.shape[1] - 1).reshape(1, 1)).squeeze(1)
    # no row can be the marked one if all marks are 0
    counts, used = Counts(size.reshape(1), (chance > 0) & (levels[-1].laws.shape[0] > 1)), 0
    for level in levels[len(levels) - 2 :: -1][:depth]:
        nodes = counts.held.shape[0]
        counts = _divide(level, counts, uniforms[used : used + nodes])
        used += nodes
    return counts


def _joined(below: Level, present: Float64[Tensor, " m"]) -> Level:
    """The level above."""
    left, right = below.laws[:, 0::2], below.laws[:, 1::2]
    laws = _convolved(left.transpose(0, 1), right[0]).transpose(0, 1)
    if left.shape[0] == 2:
        marked_right = _convolved(left[:1].transpose(0, 1), right[1]).squeeze(1)
        laws = torch.stack([laws[0], laws[1] + marked_right])
    start = below.first[0::2] + below.first[1::2]
    nodes, leaves = start.shape[0], present.shape[0] // start.shape[0]
    width = _width(leaves)
    if width > leaves:
        return Level(laws, start)
    middle = present.reshape(nodes, leaves).sum(1).round().long()
    first = (middle - width // 2).clamp(0, leaves + 1 - width)
    return Level(_moved(laws, start, first, width), first)


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
    sent = _convolved(children.flip(1, 2), message)[:, :, width - 1 : 2 * width - 1].flatten(0, 1)
    largest = sent.amax(1, keepdim=True)
    return sent / torch.where(largest > 0, largest, 1.0)


def _convolved(
    several: Float64[Tensor, "nodes many v"], one: Float64[Tensor, "nodes w"]
) -> Float64[Tensor, "nodes many u"]:
    """`one` with each of several, by products of positive numbers alone."""
    nodes, many, v = several.shape
    w = one.shape[1]
    if v <= _SMALL:
        out = several.new_zeros((nodes, many, v + w - 1))
        for place in range(v):
            out[:, :, place : place + w].addcmul_(several[:, :, place : place + 1], one.unsqueeze(1))
        return out
    # v places in blocks: `one` shifted by whole blocks, then each place within a block shifted by its own
    blocks = -(-v // _BLOCK)
    reach = (blocks - 1) * _BLOCK
    in_blocks = torch.nn.functional.pad(several, (0, blocks * _BLOCK - v)).unflatten(2, (blocks, _BLOCK)).flip(2)
    shifted = torch.nn.functional.pad(one, (reach, reach)).unfold(1, w + reach, _BLOCK)
    by_place = torch.bmm(in_blocks.transpose(2, 3).flatten(1, 2), shifted)
    length = w + reach + _BLOCK - 1
    skewed = torch.nn.functional.pad(by_place, (0, _BLOCK)).reshape(nodes, many, -1)[:, :, : _BLOCK * length]
    return skewed.unflatten(2, (_BLOCK, length)).sum(2)[:, :, : v + w - 1]
