"""The table of optimizers: how weights move by their gradients.

A row makes its optimizer of groups of weights, each with a rate and a decay, and says how many
numbers it remembers. Rates and decays mean the same in all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel

from .layers import embeddings_of
from .muon import StackedMuon
from .shards import size_of

ADAMW_NUMBERS = 2  # it remembers for each weight: averages of its gradient and of the square

Group = dict[str, Any]
Adam = Callable[[Sequence[Group]], AdamW]


class OptimizerKind(NamedTuple):
    """An optimizer.

    Attributes:
        title: its name in a card.
        told: what it is, as part of a sentence.
        make: of a `MaskGitForMaskedLM`, groups of its weights, and what makes AdamW of groups;
            raises a ValueError where nothing is left for it to move.
        numbers: how many it remembers, of a model with what does not learn frozen.
        by_number: whether it moves each number of a weight by that number's gradients alone, so
            that a part of a weight may be moved without the others.
    """

    title: str
    told: str
    make: Callable[[nn.Module, Sequence[Group], Adam], Optimizer]
    numbers: Callable[[nn.Module], int]
    by_number: bool = True


class MuonWithAdamW(Optimizer):
    """Muon for some weights and AdamW for the others, as one optimizer.

    Groups and state are those of both, in this order; they are shared and not copied, so that a
    schedule of rates, a checkpoint and Accelerate see one optimizer.

    Args:
        muon: of matrices.
        adam: of all other weights.
    """

    def __init__(self, muon: Muon, adam: AdamW) -> None:
        self._parts: tuple[Optimizer, ...] = (muon, adam)
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over groups and state, as `load_state_dict` has made them."""
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all weights that have a gradient."""
        for part in self._parts:
            part.step()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


def matrices_of(model: Any) -> list[nn.Parameter]:
    """Return the weights that Muon moves: those of linear layers behind an encoder's embeddings.

    Tables of embeddings, heads, self-conditioning and all that is no matrix are none of them, as
    Muon's authors advise (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Args:
        model: a `MaskGitForMaskedLM`; what is frozen is left out.
    """
    encoders: list[PreTrainedModel] = [e for e in (model.denoiser, model.critic) if e is not None]
    found: dict[int, nn.Parameter] = {}
    for encoder in encoders:
        before = {id(parameter) for parameter in embeddings_of(encoder)}
        for module in encoder.base_model.modules():
            if isinstance(module, nn.Linear) and id(module.weight) not in before:
                found[id(module.weight)] = module.get_parameter("weight")
    return [weight for weight in found.values() if weight.requires_grad]


def _make_adamw(model: nn.Module, groups: Sequence[Group], adam: Adam) -> Optimizer:
    return adam(groups)


def _make_muon(model: nn.Module, groups: Sequence[Group], adam: Adam) -> Optimizer:
    matrices = {id(weight) for weight in matrices_of(model)}
    if not matrices:
        raise ValueError(
            "optim='muon' moves the matrices of an encoder's layers, and none of them learns here. "
            "Leave `optim` out, or let layers learn (see `train` and `freeze`)."
        )
    chosen, others = (
        [
            {**group, "params": [p for p in group["params"] if (id(p) in matrices) == is_one]}
            for group in groups
        ]
        for is_one in (True, False)
    )
    muon = StackedMuon([group for group in chosen if group["params"]])
    return MuonWithAdamW(muon, adam([group for group in others if group["params"]]))


def _numbers(parameters: Sequence[nn.Parameter]) -> int:
    return sum(size_of(parameter) for parameter in parameters)


def _of_adamw(model: nn.Module) -> int:
    return ADAMW_NUMBERS * _numbers([p for p in model.parameters() if p.requires_grad])


OPTIMIZERS = {
    "adamw_torch_fused": OptimizerKind("AdamW", "AdamW for all weights", _make_adamw, _of_adamw),
    "muon": OptimizerKind(
        "Muon and AdamW",
        "Muon for the matrices of the encoder's layers, whose updates it makes orthogonal, and "
        "AdamW for all else",
        _make_muon,
        lambda model: _of_adamw(model) - _numbers(matrices_of(model)),
        by_number=False,
    ),
}
