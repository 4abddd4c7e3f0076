"""Bytes of a training step of a T5 in closed form: what limits their ratio as width, depth, batch or length grows.

Counted, not fitted: every tensor that autograd keeps in a block, in numbers of 4 bytes. One block of the encoder keeps
per token, with width d, h heads of inner width D = h · d_kv, feed-forward width F, s tokens per input (fp32, dropout):

    stock                8d + 2 + 4D + 3F + 3hs
        2d + 1  twice: a norm keeps its input, the input times 1/rms, and 1/rms
        2d      inputs of q, k, v (one storage) and of wi;  D, F: those of o and wo
        2d      masks of dropout before the residual sum, as numbers
        3D      q, k, v;  3hs: softmax, its mask, its dropped form;  2F: ReLU's output and dropout's mask
    sampled              6d + 2 + 3D + 2F + 3hs + ρ (2d + D + F)
        an input that nobody else keeps shrinks to a share ρ of its rows
    lean                 2d + 2 + 3D + 2h + D + F + (2d + 2F)/32
        a norm keeps its input and 1/rms, and layers behind it make theirs again; attention keeps q, k, v and sums of
        exponentials; masks and signs are bits
    lean again           2d + 2 + 2h + D + F + (2d + 2F)/32
        q, k and v are made again too
    lean again, sampled  2d + 2 + 2h + (2d + 2F)/32 + ρ (2d + D + F)
    checkpointed         d, and the largest block for as long as its backward pass takes

A block of the decoder has a third norm and a second attention, whose keys and values stand for source tokens. Limits
follow. With D = d and F = 4d:

* **batch → ∞**: the peak's ratio goes to the ratio of what is kept, for what is fixed no longer counts.
* **width → ∞** at a fixed batch: weights, gradients and states grow as d², what is kept as d: the ratio goes to 1.
* **depth → ∞**: all grows as L, and the ratio to that of one block with its weights and states.
* **length → ∞**: stock keeps 3hs per token, sampled too: their ratio goes to 1; lean, which keeps no scores, gains
  without bound.

Sampling alone can never free more than 2d + D + F of a stock block: a share below (2d + D + F)/(8d + 4D + 3F) = 7/24.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from wtacrs.estimators.core.errors import InputError

StepWay = Literal["stock", "sampled", "lean", "again", "again, sampled", "checkpointed", "again, checkpointed"]
"""Ways to take a step that have a closed form."""

WAYS: tuple[StepWay, ...] = (
    "stock", "sampled", "lean", "again", "again, sampled", "checkpointed", "again, checkpointed"
)  # fmt: skip

NUMBER = 4
"""Bytes of a number in fp32."""
_BIT = 1 / 32
STATES = {"adamw": 2.0, "sgd": 0.0, "none": 0.0}
"""Numbers that an optimizer remembers per parameter."""
_BUCKETS = 32
LOGITS_AT_A_TIME = 2**25 // NUMBER
"""Numbers of logits that a lean output layer makes at a time."""


@dataclass(frozen=True)
class T5Step:
    """Sizes of a T5 (ReLU, tied embeddings) and of its batch.

    Attributes:
        width: d, of the residual stream.
        inner: D, heads times their width.
        feed_forward: F.
        heads: h.
        layers: of the encoder.
        decoder_layers: of the decoder.
        vocabulary: V.
        batch_size: b.
        length: s, tokens of an input.
        target_length: t, tokens of an answer.
    """

    width: int
    inner: int
    feed_forward: int
    heads: int
    layers: int
    decoder_layers: int
    vocabulary: int
    batch_size: int
    length: int
    target_length: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"{name}={value!r} must be at least 1")

    def but(self, **changes: int) -> T5Step:
        """The same with some sizes changed."""
        return replace(self, **changes)

    @property
    def source_tokens(self) -> int:
        """N = b s."""
        return self.batch_size * self.length

    @property
    def target_tokens(self) -> int:
        """T = b t."""
        return self.batch_size * self.target_length

    @property
    def parameters(self) -> int:
        """All weights: embeddings, two tables of relative positions, blocks and final norms."""
        d, attention, feed = self.width, 4 * self.width * self.inner, 2 * self.width * self.feed_forward
        encoder = self.layers * (attention + feed + 2 * d)
        decoder = self.decoder_layers * (2 * attention + feed + 3 * d)
        return self.vocabulary * d + encoder + decoder + 2 * _BUCKETS * self.heads + 2 * d


@dataclass(frozen=True)
class StepBytes:
    """Bytes of a step.

    Attributes:
        weights: of all parameters; gradients are as many.
        states: of the optimizer.
        embeddings: gradient of the embeddings, which the output layer makes first (a lean one in the forward pass).
        kept: for the backward pass.
        work: at work when the backward pass begins, gradient of the output layer included.
        logits: of what is kept, stock logits, which are let go first.
        gradients: inside one block, while its backward pass runs.
        block: that a checkpointed block makes again; 0 elsewhere.
        update: at work while the optimizer updates the largest matrix.
    """

    weights: float
    states: float
    embeddings: float
    kept: float
    work: float
    logits: float
    gradients: float
    block: float
    update: float

    @property
    def fixed(self) -> float:
        """What is there whatever the batch: weights, states, gradients."""
        return 2 * self.weights + self.states

    @property
    def peak(self) -> float:
        """The largest of the output layer's backward pass, the first block's, and the end, where all gradients are."""
        before = self.weights + self.states + self.kept
        first = before - self.logits + self.embeddings + self.block + self.gradients
        return max(before + self.work, first, self.fixed + max(self.block, self.update))


def step_bytes(step: T5Step, way: StepWay = "stock", *, rows: float = 1.0, optimizer: str = "adamw") -> StepBytes:
    """Bytes of a step in closed form.

    Args:
        step: sizes.
        way: how the step is taken.
        rows: ρ, the share of the rows that sampled layers keep, in (0, 1].
        optimizer: a key of `STATES`.

    Raises:
        InputError: on an unknown way or optimizer, and on a share outside (0, 1].

    >>> base = T5Step(768, 768, 3072, 12, 12, 12, 32_128, 64, 128, 128)
    >>> round(step_bytes(base).kept / step_bytes(base, "sampled", rows=0.3).kept, 2)
    1.17
    """
    if way not in WAYS:
        raise InputError(f"way={way!r} must be one of {', '.join(WAYS)}")
    if optimizer not in STATES:
        raise InputError(f"optimizer={optimizer!r} must be one of {', '.join(STATES)}")
    if not 0 < rows <= 1:
        raise InputError(f"rows={rows!r} must be in (0, 1]")
    weights = float(NUMBER * step.parameters)
    encoder, decoder = encoder_block(step, way, rows), decoder_block(step, way, rows)
    cross = step.source_tokens * step.decoder_layers * _cross_values(step, way)
    blocks = (
        step.layers * step.source_tokens * encoder + step.decoder_layers * step.target_tokens * decoder + cross
    )
    kept = NUMBER * (blocks + _ends(step, way, rows))
    block = 0.0 if "checkpointed" not in way else _made_again(step, "stock" if way == "checkpointed" else "lean")
    return StepBytes(
        weights=weights,
        states=STATES[optimizer] * weights,
        embeddings=float(NUMBER * step.vocabulary * step.width) * (way != "lean"),
        kept=kept,
        work=_head_work(step, way),
        logits=0.0 if _is_lean(way) else float(NUMBER * step.target_tokens * step.vocabulary),
        gradients=_block_gradients(step),
        block=block,
        update=_update_work(step, optimizer),
    )


def encoder_block(step: T5Step, way: StepWay, rows: float = 1.0) -> float:
    """Numbers that a block of the encoder keeps per source token."""
    d, inner, feed, h, s = step.width, step.inner, step.feed_forward, step.heads, step.length
    inputs = 2 * d + inner + feed
    bits = _BIT * (2 * d + 2 * feed)
    scores = 3 * h * s
    found = {
        "stock": 6 * d + 2 + 3 * inner + 2 * feed + scores + inputs,
        "sampled": 6 * d + 2 + 3 * inner + 2 * feed + scores + rows * inputs,
        "lean": 2 * d + 2 + 4 * inner + 2 * h + feed + bits,
        "again": 2 * d + 2 + inner + 2 * h + feed + bits,
        "again, sampled": 2 * d + 2 + 2 * h + bits + rows * inputs,
        "checkpointed": d,
        "again, checkpointed": d,
    }
    return float(found[way])


def decoder_block(step: T5Step, way: StepWay, rows: float = 1.0) -> float:
    """Numbers that a block of the decoder keeps per target token; keys and values of source tokens come on top."""
    d, inner, feed, h = step.width, step.inner, step.feed_forward, step.heads
    inputs = 3 * d + 2 * inner + feed
    bits = _BIT * (3 * d + 2 * feed)
    scores = 3 * h * (step.length + step.target_length)
    found = {
        "stock": 9 * d + 3 + 4 * inner + 2 * feed + scores + inputs,
        "sampled": 9 * d + 3 + 4 * inner + 2 * feed + scores + rows * inputs,
        "lean": 3 * d + 3 + 6 * inner + 4 * h + feed + bits,
        "again": 3 * d + 3 + 2 * inner + 4 * h + feed + bits,
        "again, sampled": 3 * d + 3 + 4 * h + bits + rows * inputs,
        "checkpointed": d,
        "again, checkpointed": d,
    }
    return float(found[way])


def kept_ratio(step: T5Step, way: StepWay, rows: float = 1.0) -> float:
    """What stock keeps over what a way keeps: the limit of the peaks' ratio as the batch grows."""
    return step_bytes(step).kept / step_bytes(step, way, rows=rows).kept


def _made_again(step: T5Step, inside: StepWay) -> float:
    """Bytes of the largest checkpointed block once it is made again: stock attention, neighbours stock or lean."""
    scores = 3 * step.heads * (inside == "lean")
    encoder = encoder_block(step, inside) + scores * step.length
    decoder = decoder_block(step, inside) + scores * (step.length + step.target_length)
    values = step.source_tokens * _cross_values(step, inside)
    return float(NUMBER * max(step.source_tokens * encoder, step.target_tokens * decoder + values))


def _cross_values(step: T5Step, way: StepWay) -> float:
    """Keys and values of the second attention, per source token and block of the decoder."""
    return {"stock": 2.0, "sampled": 2.0, "lean": 2.0}.get(way, 0.0) * step.inner


def _ends(step: T5Step, way: StepWay, rows: float) -> float:
    """Numbers kept outside of blocks: dropout, final norms, the encoder's output, logits, tables of positions."""
    d, source, target = step.width, step.source_tokens, step.target_tokens
    lean, checkpointed = _is_lean(way), "checkpointed" in way
    stream = d + 1 + 2 * d * _BIT if lean else 4 * d + 1
    # the encoder's output, which all blocks of the decoder read: lean layers make it again
    output = {"stock": 1.0, "sampled": rows, "again, sampled": rows}.get(way, 1.0 if checkpointed else 0.0) * d
    head_input = (rows if way == "sampled" else 1.0) * d
    logits = 0.0 if lean else float(step.vocabulary)
    gradient = float(step.vocabulary * d) if way == "lean" else 0.0  # made in the forward pass
    indices = 2 * (step.length**2 + step.target_length**2) * (not checkpointed)
    products = step.length**2 + step.target_length**2 + step.length * step.target_length
    tables = step.heads * products if lean or checkpointed else 0
    return source * (stream + output) + target * (stream + head_input + logits) + gradient + indices + tables


def _head_work(step: T5Step, way: StepWay) -> float:
    """At work when the backward pass begins: two gradients of stock logits, or the gradient of the embeddings.

    A lean output layer makes logits of at most so many rows at a time, beside that gradient.
    """
    embeddings = float(NUMBER * step.vocabulary * step.width)
    logits = float(NUMBER * step.target_tokens * step.vocabulary)
    if way in ("stock", "sampled", "checkpointed"):
        return max(2 * logits, embeddings)
    piece = min(logits, float(NUMBER * LOGITS_AT_A_TIME))
    return piece if way == "lean" else piece + embeddings


def _block_gradients(step: T5Step) -> float:
    """Gradients of the feed-forward part of the decoder's last block, or of its attention, whichever is more."""
    d, inner, feed = step.width, step.inner, step.feed_forward
    return float(NUMBER * step.target_tokens * max(2 * feed + 3 * d, 6 * inner + 3 * d))


def _is_lean(way: StepWay) -> bool:
    return "lean" in way or "again" in way


def _update_work(step: T5Step, optimizer: str) -> float:
    """Temporary copies of the largest matrix while AdamW updates it."""
    largest = step.width * max(step.vocabulary, step.feed_forward, step.inner)
    return NUMBER * largest * (2.0 if optimizer == "adamw" else 0.0)
