"""The documented state of a user's own loop: a resumed run draws what it would have drawn, and trusts no mask anew."""

from __future__ import annotations

import json

import pytest
import torch
from support.models import t5_batch, tiny_t5
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from wtacrs.estimators import InputError
from wtacrs.integration import approximate_, load_sampling_state, restore_, sampling_state
from wtacrs.integration.context.sampling_state import agreed_sampling_state, misled_layers
from wtacrs.integration.parallel.processes import Processes

SPEC = "wta_crs(budget=0.3)"


class ReadsAll(nn.Module):
    """A model whose loss reads every row, whatever the mask says."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 4))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        return self.layers(x).square().mean()


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    mask = torch.arange(10) < torch.tensor([[3], [5], [10], [7]])
    for step in range(first, last):
        x = torch.randn(4, 10, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x, mask).backward()
        optimizer.step()


@pytest.mark.filterwarnings("ignore:rows that a mask calls padding")
def test_a_loop_of_ones_own_goes_on_bit_by_bit() -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = ReadsAll()
        approximate_(model, SPEC, min_elements=0, seed=4)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    torch.manual_seed(1)
    whole, optimizer = fresh()
    steps(whole, optimizer, 0, 6)

    torch.manual_seed(1)
    first, optimizer = fresh()
    steps(first, optimizer, 0, 3)
    saved = {
        "model": first.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "sampling": json.loads(json.dumps(sampling_state(first))),
    }
    assert set(saved["sampling"][""]) == {"seed", "passes", "misled"}
    assert saved["sampling"][""]["passes"] == 3
    assert set(saved["sampling"][""]["misled"]) == {"layers.0", "layers.3"}

    for load in (True, False):
        second, optimizer = fresh()
        second.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        if load:
            load_sampling_state(second, saved["sampling"])
        steps(second, optimizer, 3, 6)
        same = all(torch.equal(one, two) for one, two in zip(whole.parameters(), second.parameters(), strict=True))
        assert same == load


def test_parts_that_were_converted_by_themselves_have_states_of_their_own() -> None:
    model = tiny_t5()
    approximate_(model.encoder, SPEC, min_elements=0, seed=1)
    approximate_(model.decoder, SPEC, min_elements=0, seed=2)
    model(**t5_batch()).loss.backward()
    state = sampling_state(model)
    assert {name: entry["seed"] for name, entry in state.items()} == {"encoder": 1, "decoder": 2}
    assert sampling_state(DataParallel(model)) == state
    assert misled_layers(model) == {}
    restore_(model)
    assert sampling_state(model) == {}


@pytest.mark.parametrize(
    ("state", "fragment"),
    [
        ({}, r"state: is of converted modules \[\], and the model has \[''\]"),
        ({"encoder": {}}, r"converted modules \['encoder'\]"),
        (3, "converted modules 3"),
        ({"": None}, r"^state\[''\]=None must be a dict of seed, passes and misled$"),
        ({"": {"seed": 1, "passes": 0}}, r"^state\[''\]\['misled'\]=None must be a dict"),
        *(
            (
                {"": {"seed": seed, "passes": 0, "misled": {}}},
                rf"\['seed'\]={seed!r} must be an int from 0 to 1844",
            )
            for seed in ("one", -1, 2**64)
        ),
        *(
            ({"": {"seed": 1, "passes": passes, "misled": {}}}, rf"\['passes'\]={passes!r} must be an int from 0$")
            for passes in (True, -1, 1.0)
        ),
        ({"": {"seed": 1, "passes": 0, "misled": ["lm_head"]}}, r"\['misled'\]=\['lm_head'\] must be a dict"),
        *(
            (
                {"": {"seed": 1, "passes": 0, "misled": {"lm_head": share}}},
                rf"\['lm_head'\]={share!r} must be a number",
            )
            for share in ("x", True, -0.1, 1.5, float("nan"), float("inf"))
        ),
        (
            {"": {"seed": 1, "passes": 0, "misled": {"head": 0.5}}},
            r"^state\[''\]\['misled'\] names 'head', none of the 33 converted layers: encoder\.",
        ),
    ],
)
def test_another_state_is_refused(unchecked: None, state: object, fragment: str) -> None:
    model = tiny_t5()
    approximate_(model, SPEC, min_elements=0)
    before = sampling_state(model)
    with pytest.raises(InputError, match=fragment):
        load_sampling_state(model, state)  # type: ignore[arg-type]
    assert sampling_state(model) == before


def test_nothing_is_changed_if_one_part_is_refused() -> None:
    model = tiny_t5()
    for part in (model.encoder, model.decoder):
        approximate_(part, SPEC, seed=1)
    before = sampling_state(model)
    wrong = {name: {"seed": 2, "passes": 3, "misled": {}} for name in before}
    wrong["decoder"]["misled"] = {"block.0": 0.5}
    with pytest.raises(InputError, match=r"state\['decoder'\]\['misled'\] names 'block\.0'"):
        load_sampling_state(model, wrong)
    assert sampling_state(model) == before


def test_any_seed_of_torch_is_accepted() -> None:
    model = tiny_t5()
    torch.manual_seed(-1)
    approximate_(model, SPEC)
    state = sampling_state(model)
    assert state[""]["seed"] == 2**64 - 1
    load_sampling_state(model, state)
    assert sampling_state(model) == state


def test_processes_agree_on_the_layers_that_masks_misled(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"": {"seed": 1, "passes": 7, "misled": {"b": 0.2, "a": 0.1}}}
    theirs = {"": {"seed": 1, "passes": 7, "misled": {"c": 0.5, "a": 0.3}}}
    assert agreed_sampling_state(mine)[""]["misled"] == {"a": 0.1, "b": 0.2}
    monkeypatch.setattr(Processes, "gathered", lambda self, value: [value, theirs])
    assert agreed_sampling_state(mine) == {"": {"seed": 1, "passes": 7, "misled": {"a": 0.3, "b": 0.2, "c": 0.5}}}
    assert mine[""]["misled"] == {"b": 0.2, "a": 0.1}


def test_a_seed_of_ones_own_is_that_of_every_run() -> None:
    """Whatever torch was seeded with; without one, torch's seed is looked at and not advanced."""

    def gradient(seed: int | None, torch_seed: int) -> Tensor:
        model = tiny_t5()
        torch.manual_seed(torch_seed)
        before = torch.get_rng_state()
        approximate_(model, SPEC, min_elements=0, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        model(**t5_batch()).loss.backward()
        return model.encoder.block[0].layer[1].DenseReluDense.wi.weight.grad

    assert torch.equal(gradient(3, 1), gradient(3, 2))
    assert not torch.equal(gradient(3, 1), gradient(4, 1))
    assert torch.equal(gradient(None, 1), gradient(None, 1))
    assert not torch.equal(gradient(None, 1), gradient(None, 2))
