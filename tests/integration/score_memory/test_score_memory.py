"""Scores from remembered gradient norms: against slow twins, unbiased, floored, through checkpointing and resuming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn

from wtacrs.estimators import InputError, make, row_norms
from wtacrs.estimators.core.mask_floor import scores_with_floor
from wtacrs.estimators.core.scores import floored_scores
from wtacrs.estimators.core.sizing import rows_kept
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.score_memory.gradient_norms import GradientNorms, gradient_norms_of
from wtacrs.integration.score_memory.kinds import TRAINING_SCORES, make_gradient_norms
from wtacrs.integration.score_memory.last_seen_norms import LastSeenNorms
from wtacrs.integration.score_memory.norm_table import NormTable
from wtacrs.integration.score_memory.position_norms import PositionNorms
from wtacrs.integration.score_memory.running_norms import RunningNorms
from wtacrs.integration.score_memory.token_norms import TokenNorms
from wtacrs.validation.enumeration.exact_moments import enumerate_moments

SPEC = "wta_crs(budget=0.3)"
KINDS = TRAINING_SCORES[1:]


class Tokens(nn.Module):
    """An embedding, a layer for every row, and a loss whose gradients differ from row to row and pass to pass."""

    config = type("Config", (), {"is_encoder_decoder": False, "vocab_size": 20})()

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Embedding(20, 6)
        self.first, self.second = nn.Linear(6, 4, dtype=torch.float64), nn.Linear(4, 3, dtype=torch.float64)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, weights: Tensor) -> Tensor:
        x = self.embedding(input_ids).double()
        y = self.second(torch.tanh(self.first(x)))
        return (y * (weights * attention_mask).unsqueeze(-1)).square().sum()


LENGTHS = (5, 2, 7, 1, 4, 6, 3)
"""Of the examples of a small data set."""


def batches(epochs: int, size: int, *, left: bool = False) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Shuffled batches of the data set, padded on the right or on the left, with other weights every time."""
    generator = torch.Generator().manual_seed(1)
    data = [torch.randint(0, 20, (length,), generator=generator) for length in LENGTHS]
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=generator).tolist()
        for start in range(0, len(order), size):
            ids = order[start : start + size]
            longest = max(LENGTHS[i] for i in ids)
            tokens = torch.zeros(len(ids), longest, dtype=torch.int64)
            mask = torch.zeros_like(tokens)
            for row, i in enumerate(ids):
                place = slice(longest - LENGTHS[i], None) if left else slice(0, LENGTHS[i])
                tokens[row, place], mask[row, place] = data[i], 1
            weights = torch.randn(len(ids), longest, generator=generator, dtype=torch.float64)
            yield ids, {"input_ids": tokens, "attention_mask": mask, "weights": weights.abs()}


class RecordedModel:
    """The model with one layer converted, whose scores, rows and gradients are laid bare."""

    def __init__(self, scores: GradientNorms, spec: str = "crs(budget=0.5)") -> None:
        self.model = Tokens()
        approximate_(self.model, spec, min_elements=0, scores=scores, filter_fn=lambda _, name: name == "first")
        self.x, self.used, self.dy = (torch.zeros(0) for _ in range(3))
        self.model.first.register_forward_hook(self._record)

    def _record(self, layer: ApproxLinear, args: tuple[Tensor], output: Tensor) -> None:
        scores = layer.scores_of(args[0])
        assert scores is not None
        self.x, self.used = args[0].detach().reshape(-1, 6), scores
        output.register_hook(lambda dy: setattr(self, "dy", dy.reshape(-1, 4).clone()))


def bf16(value: Tensor) -> float:
    return float(value.to(torch.bfloat16))


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("on_disk", [False, True])
def test_the_cache_is_a_dict_of_dicts(tmp_path: Path, left: bool, accumulated: int, on_disk: bool) -> None:
    """Over epochs, shuffled, with short last batches, padding, and steps of several batches; by example and token."""
    cache = LastSeenNorms(tmp_path if on_disk else None)
    watched = RecordedModel(cache)
    optimizer = torch.optim.SGD(watched.model.parameters(), lr=0.01)
    twin: dict[int, dict[int, float]] = {}
    for number, (ids, batch) in enumerate(batches(epochs=3, size=3, left=left)):
        loss = watched.model(**batch, example_ids=torch.tensor(ids))
        mask = batch["attention_mask"].bool()
        real = twin_scores(twin, ids, mask, row_norms(watched.x))
        assert torch.equal(watched.used, with_padding(real, mask, watched))
        loss.backward()
        norms = row_norms(watched.dy).reshape(mask.shape)
        for row, example in enumerate(ids):
            for token, position in enumerate(mask[row].nonzero().flatten().tolist()):
                twin.setdefault(example, {})[token] = bf16(norms[row, position])
        if (number + 1) % accumulated == 0:
            optimizer.step()
            optimizer.zero_grad()
    assert {example: len(tokens) for example, tokens in twin.items()} == dict(enumerate(LENGTHS))
    assert cache.examples == len(LENGTHS)
    saved = cache.state_dict()["tables"]["source"]
    assert saved["values"].shape == (sum(LENGTHS), 1)
    for example, tokens in twin.items():
        start = int(saved["start"][example])
        assert saved["values"][start : start + len(tokens), 0].tolist() == list(tokens.values())


def with_padding(real: Tensor, mask: Tensor, watched: RecordedModel) -> Tensor:
    """Rows called padding are within reach, whatever is remembered of the others."""
    flat, kept = mask.flatten(), rows_kept(watched.model.first.estimator, mask.numel())
    scores = torch.where(flat, real, row_norms(watched.x))
    return scores_with_floor(scores, flat, kept, watched.model.first.mask_floor)


def twin_scores(twin: dict[int, dict[int, float]], ids: list[int], mask: Tensor, norms: Tensor) -> Tensor:
    """By hand: what was last seen, the root mean square of it where nothing was, row norms where nothing was at all."""
    expected: list[float | None] = []
    for row, example in enumerate(ids):
        token = 0
        for counted in mask[row].tolist():
            expected.append(twin.get(example, {}).get(token) if counted else None)
            token += counted
    flat = mask.flatten()
    seen = [value for value in expected if value is not None]
    if not seen:
        return torch.where(flat, norms, 0.0)
    usual = (torch.tensor(seen, dtype=torch.float64).square().sum() / len(seen)).sqrt()
    filled = torch.stack([usual if e is None else torch.tensor(e, dtype=torch.float64) for e in expected])
    scores = floored_scores(norms, filled, flat, 0.5)
    torch.testing.assert_close(
        scores[flat], 0.5 * (norms * filled)[flat] / (norms * filled)[flat].sum() + 0.5 / float(flat.sum())
    )
    return scores


@pytest.mark.parametrize("kind", ["by-token", "by-position"])
def test_running_averages_are_a_dict(kind: str) -> None:
    norms: RunningNorms = TokenNorms(decay=0.6) if kind == "by-token" else PositionNorms(longest=4, decay=0.6)
    watched = RecordedModel(norms)
    twin: dict[int, float] = {}
    for _, batch in batches(epochs=2, size=3):
        watched.model(**batch).backward()
        mask, sizes = batch["attention_mask"].bool(), row_norms(watched.dy)
        of_key: dict[int, list[float]] = {}
        for row in range(mask.shape[0]):
            for position in mask[row].nonzero().flatten().tolist():
                last = position == int(mask[row].sum()) - 1
                by_position = 4 if last else min(position, 3)
                key = int(batch["input_ids"][row, position]) if kind == "by-token" else by_position
                of_key.setdefault(key, []).append(float(sizes[row * mask.shape[1] + position]) ** 2)
        for key, squares in of_key.items():
            now = sum(squares) / len(squares)
            twin[key] = (0.6 * twin[key] ** 2 + 0.4 * now) ** 0.5 if key in twin else now**0.5
    (table,) = norms.state_dict()["averages"].values()
    assert table.shape == (norms.keys,)
    by_hand = torch.tensor([twin.get(key, -1.0) for key in range(norms.keys)])
    torch.testing.assert_close(table, by_hand)
    assert norms.nbytes == 4 * norms.keys


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", ["crs(budget=2)", "wta_crs(budget=2)", 'wta_crs(budget=2, winners="optimal")'])
def test_unbiased_over_all_outcomes(kind: str, spec: str) -> None:
    """In the first epoch and the second, where a remembered zero meets a gradient: of the scores that are used."""
    norms = make_gradient_norms(kind)
    assert norms is not None
    watched = RecordedModel(norms, spec)
    checked = 0
    for number, (ids, batch) in enumerate(batches(epochs=2, size=2)):
        if number < 3:
            batch["weights"][:, :2] = 0.0  # no gradient, which is remembered
        watched.model(**batch, example_ids=torch.tensor(ids)).backward()
        mask = batch["attention_mask"].flatten().bool()
        assert (watched.used > 0).all()
        assert watched.used[~mask].unique().numel() <= 1
        probabilities = watched.used[mask] / watched.used[mask].sum()
        if number >= 4:
            assert (probabilities >= norms.floor / float(mask.sum()) * (1 - 1e-9)).all()
        if mask.shape[0] <= 8:
            moments = enumerate_moments(make(spec), watched.x, watched.dy, scores=watched.used)
            torch.testing.assert_close(
                moments.mean, watched.dy.double().T @ watched.x.double(), atol=1e-12, rtol=1e-9
            )
            checked += 1
    assert checked >= 2


def test_zeros_without_a_floor_would_be_a_bias() -> None:
    """What the tests above would find: the same scores, less the floor."""
    watched = RecordedModel(LastSeenNorms())
    cases = list(batches(epochs=2, size=1))
    for ids, batch in cases[:7]:
        batch["weights"][:, :1] = 0.0
        watched.model(**batch, example_ids=torch.tensor(ids)).backward()
    ids, batch = next((i, b) for i, b in cases[7:] if LENGTHS[i[0]] == 4)
    watched.model(**batch, example_ids=torch.tensor(ids)).backward()
    bare = (watched.used / watched.used.sum() - 0.5 / 4).clamp(min=0)
    assert (bare[:1] < 1e-12).all()
    bare[:1] = 0
    mean = enumerate_moments(make("crs(budget=2)"), watched.x, watched.dy, scores=bare).mean
    assert not torch.allclose(mean, watched.dy.T @ watched.x.double(), rtol=1e-2)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone().double() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_scores_and_draws_of_the_run_without_it(kind: str, reentrant: bool) -> None:
    """Three steps, so that what is remembered is used; in double precision, where rounding moves no row."""
    results = []
    for how in (None, reentrant):
        model = tiny_t5(dropout=0.2).double()
        approximate_(model, SPEC, min_elements=0, scores=kind, share_inputs=False)
        if how is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": how})
        torch.manual_seed(3)
        for ids in ([0, 1, 2], [2, 1, 0], [0, 1, 2]):
            model.zero_grad()
            model(**t5_batch(), example_ids=torch.tensor(ids)).loss.backward()
        norms = gradient_norms_of(model)
        assert norms is not None
        results.append((gradients(model), norms.state_dict()))
    (expected, memory), (found, memory_found) = results
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)
    same_state(memory, memory_found)


def same_state(one: Any, two: Any, exactly: bool = False) -> None:
    """Equal, columns of a table in whatever order they came."""
    if isinstance(one, dict) and "columns" in one:
        assert sorted(one["columns"]) == sorted(two["columns"])
        order = [two["columns"].index(column) for column in one["columns"]]
        torch.testing.assert_close(one["values"], two["values"][:, order], rtol=1e-2, atol=0)
        assert torch.equal(one["start"], two["start"])
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            same_state(one[key], two[key])
    elif isinstance(one, Tensor):
        torch.testing.assert_close(one, two)
    else:
        assert one == two


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_looked_up_does_not_change_within_a_pass(kind: str) -> None:
    """Whatever backward passes come between, of this pass or another: entered is what they show by the next."""
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0, scores=kind)
    layer = model.bert.encoder.layer[0].intermediate.dense
    ids = torch.arange(3)
    for _ in range(2):
        model(**bert_batch(), example_ids=ids).loss.backward()
    x = torch.randn(3, 10, 32)
    seen: list[Tensor] = []
    query = model.bert.encoder.layer[0].attention.self.query
    query.register_full_backward_hook(lambda *_: seen.append(layer.scores_of(x)) or None)  # after the layer's own
    handle = layer.register_forward_hook(lambda *_: seen.append(layer.scores_of(x)))
    loss = model(**bert_batch(), example_ids=ids).loss
    handle.remove()
    loss.backward()
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])


def test_a_shared_sample_is_scored_by_all_that_read_it() -> None:
    """√Σ_c ‖y^(c)‖² over q, k and v, remembered once, under the name of the first."""
    model = tiny_bert()
    approximate_(model, "crs(budget=1.0)", min_elements=0, scores="last-seen")
    attention = model.bert.encoder.layer[0].attention.self
    squares = torch.zeros(30, dtype=torch.float64)

    def note(dy: Tensor) -> None:
        squares.add_(row_norms(dy.reshape(30, -1)).square())

    # not by full backward hooks, which give every module an input of its own
    for part in (attention.query, attention.key, attention.value):
        part.register_forward_hook(lambda _, __, y: y.register_hook(lambda dy: note(dy)) and None)
    model(**bert_batch(), example_ids=torch.arange(3)).loss.backward()
    norms = gradient_norms_of(model)
    assert norms is not None
    table = norms.state_dict()["tables"]["source"]
    prefix = "bert.encoder.layer.0."
    assert sorted(table["columns"]) == sorted(
        prefix + name
        for name in ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
    )
    mask = bert_batch()["attention_mask"].flatten().bool()
    column = table["values"][:, table["columns"].index(prefix + "attention.self.query")]
    assert torch.equal(column, squares.sqrt()[mask].to(torch.bfloat16))


def test_bytes_and_own_lengths() -> None:
    cache = LastSeenNorms()
    watched = RecordedModel(cache)
    assert (cache.nbytes, cache.examples) == (0, 0)
    for ids, batch in batches(epochs=1, size=7):
        watched.model(**batch, example_ids=torch.tensor(ids)).backward()
    saved = cache.state_dict()["tables"]["source"]
    assert saved["values"].numel() == sum(LENGTHS)  # not 7 × the longest
    least = 2 * sum(LENGTHS) + 12 * len(LENGTHS)
    assert least <= cache.nbytes <= 1.6 * least
    assert cache.examples == 7


def test_gradients_that_are_not_finite_are_not_remembered() -> None:
    for norms in (LastSeenNorms(), TokenNorms(), PositionNorms()):
        watched = RecordedModel(norms)
        (ids, batch), *_ = batches(epochs=1, size=7)
        ids = torch.tensor(ids)
        watched.model(**batch, example_ids=ids).backward()
        before = norms.state_dict()
        (watched.model(**batch, example_ids=ids) * float("inf")).backward()
        same_state(before, norms.state_dict())


def test_an_example_that_comes_back_longer_or_shorter_keeps_what_is_known(tmp_path: Path) -> None:
    for path in (None, tmp_path / "t.bf16"):
        table = NormTable(path)
        ids = torch.tensor([5, 2])
        starts = table.places(ids, torch.tensor([3, 2]))
        first = torch.cat([starts[0] + torch.arange(3), starts[1] + torch.arange(2), torch.tensor([-1])])
        table.write(first, "a", torch.arange(6.0))
        table.write(first[:5], "b", torch.arange(5.0) + 10)
        assert table.read(first).tolist() == [[0, 10], [1, 11], [2, 12], [3, 13], [4, 14], [-1, -1]]
        (start,) = table.places(torch.tensor([5]), torch.tensor([5])).tolist()
        assert table.read(start + torch.arange(5)).tolist() == [[0, 10], [1, 11], [2, 12], [-1, -1], [-1, -1]]
        assert table.places(torch.tensor([5]), torch.tensor([1])).tolist() == [start]
        other = NormTable(None if path is None else tmp_path / "u.bf16")
        other.load_state_dict(table.state_dict())
        assert torch.equal(other.read(start + torch.arange(5)), table.read(start + torch.arange(5)))
        assert other.examples == table.examples == 2
    assert (tmp_path / "t.bf16").stat().st_size >= 2 * 2 * 10
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_ids_given_by_hand_are_those_in_the_arguments() -> None:
    states = []
    for by_hand in (True, False):
        cache = LastSeenNorms()
        watched = RecordedModel(cache)
        for ids, batch in batches(epochs=2, size=3):
            if by_hand:
                with cache.given(ids):
                    loss = watched.model(**batch)
                loss.backward()
            else:
                watched.model(**batch, example_ids=torch.tensor(ids)).backward()
        assert cache.ids is None
        states.append(cache.state_dict())
    same_state(*states)


def test_amp_remembers_and_stays_finite() -> None:
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0, scores="last-seen")
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**bert_batch(), example_ids=torch.arange(3)).loss
        loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    norms = gradient_norms_of(model)
    assert norms is not None
    assert (norms.state_dict()["tables"]["source"]["values"] >= 0).all()


def test_rows_that_cannot_be_told_are_sampled_by_their_norms() -> None:
    """A pooler's by token or position; a layer that runs by itself."""
    for kind in KINDS:
        model = tiny_bert()
        approximate_(model, SPEC, min_elements=0, scores=kind)
        for _ in range(2):
            model(**bert_batch(), example_ids=torch.arange(3)).loss.backward()
        x = torch.randn(3, 10, 32, requires_grad=True)
        model.bert.encoder.layer[0].intermediate.dense(x).sum().backward()
        if kind.startswith("by-"):
            norms = gradient_norms_of(model)
            assert norms is not None
            assert not [layer for layer in norms.state_dict()["averages"] if "pooler" in layer]


def test_bad_input_is_named(unchecked: None) -> None:
    model = tiny_bert()
    with pytest.raises(InputError, match="scores='stale' must be one of 'row-norms', 'last-seen', 'by-token'"):
        approximate_(model, SPEC, scores="stale")
    assert not any(type(module) is ApproxLinear for module in model.modules())
    with pytest.raises(InputError, match=r"vocab_size; use TokenNorms\(vocabulary="):
        approximate_(nn.Sequential(nn.Linear(4, 4)), SPEC, scores="by-token")
    approximate_(model, SPEC, min_elements=0, scores="last-seen")
    with pytest.raises(InputError, match=r"need to know the examples: give the model example_ids="):
        model(**bert_batch())
    for ids, message in (
        (torch.tensor([0, 1, -1]), "-1 is not a position"),
        (torch.tensor([0, 1, 2**40]), f"{2**40} is not a position"),
        (torch.rand(3), "must be integers"),
        (torch.zeros(3, 1, dtype=torch.int64), r"of shape \[batch\]"),
    ):
        with pytest.raises(InputError, match=message):
            model(**bert_batch(), example_ids=ids)
    restore_(model)
    for make_wrong, message in (
        (lambda: LastSeenNorms(floor=0.0), "floor=0.0"),
        (lambda: LastSeenNorms(Path("nowhere at all")), "folder=nowhere at all"),
        (lambda: TokenNorms(decay=1.0), "decay=1.0"),
        (lambda: TokenNorms(decay="x"), "decay='x'"),
        (lambda: TokenNorms(floor=True), "floor=True"),
        (lambda: LastSeenNorms("tests"), "folder=tests must be the Path of a folder"),
        (lambda: TokenNorms(1.5), "vocabulary=1.5 must be an integer from 1, or None"),
        (lambda: PositionNorms(True), "longest=True must be an integer from 1"),
        (lambda: TokenNorms(0), "vocabulary=0"),
        (lambda: PositionNorms(0), "longest=0"),
        (
            lambda: LastSeenNorms().load_state_dict(PositionNorms().state_dict()),
            "the state is of scores='by-position'",
        ),
    ):
        with pytest.raises(InputError, match=message):
            make_wrong()
    watched = RecordedModel(TokenNorms())
    watched.model(**next(batches(1, 3))[1]).backward()
    state = gradient_norms_of(watched.model).state_dict()
    with pytest.raises(InputError, match="'first' has 20 keys, not 7"):
        TokenNorms(7).load_state_dict(state)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "-" in kind])
def test_a_state_from_before_names_had_hyphens_goes_on(kind: str) -> None:
    watched = RecordedModel(make_gradient_norms(kind))
    ids, batch = next(batches(1, 3))
    watched.model(**batch, example_ids=torch.tensor(ids)).backward()
    norms = gradient_norms_of(watched.model)
    state = norms.state_dict()
    older = state | {"kind": kind.replace("-", " ")}
    assert older["kind"] != kind
    norms.load_state_dict(older)
    assert repr(norms.state_dict()) == repr(state)
