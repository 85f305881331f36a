"""Where the weights of an encoder stand: in its embeddings, in one of its layers, or behind."""

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..core.encoder_kinds import is_unused


def depths_of(encoder: PreTrainedModel) -> dict[int, int]:
    """Number the weights of an encoder by their place, from the embeddings to the head.

    A weight's place is its index in the list of layers, which is as long as the configuration says;
    an encoder may keep the parts of its layers in several such lists beside each other, as XLM
    does. What an encoder has before the list belongs to the embeddings. What it has behind it, such
    as a last norm, a table of relative positions that all layers share, or the LM head, stands
    behind the last layer; a head that is tied to the embeddings stands with these.

    Args:
        encoder: with or without an LM head.

    Returns:
        The place of each parameter by its `id`: 0 for the embeddings, 1 to n for the layers, n + 1
        behind them.

    Raises:
        ValueError: when its layers cannot be told apart.
    """
    expected: Any = getattr(encoder.config.get_text_config(), "num_hidden_layers", None)
    lists = _lists_of_layers(encoder)
    parents = {name.rpartition(".")[0] for name in lists}
    if not lists or len(parents) > 1 or {len(found) for found in lists.values()} != {expected}:
        told = ", ".join(f"{name!r} of {len(found)}" for name, found in lists.items()) or "none"
        raise ValueError(
            f"The layers of {type(encoder).__name__} cannot be told apart: its configuration says "
            f"{expected}, and it has these lists of modules: {told}. Leave out `layer_decay`."
        )
    depths = {id(parameter): expected + 1 for parameter in encoder.parameters()}
    for parameter in embeddings_of(encoder):
        depths[id(parameter)] = 0
    for layers in lists.values():
        for i, layer in enumerate(layers):
            for parameter in layer.parameters():
                depths[id(parameter)] = i + 1
    return depths


def embeddings_of(encoder: PreTrainedModel) -> list[nn.Parameter]:
    """Return what an encoder has before its layers: embeddings, their norm and their projection."""
    lists = _lists_of_layers(encoder).values()
    in_lists = {id(parameter) for layers in lists for parameter in layers.parameters()}
    used = filter(_used(encoder), encoder.base_model.parameters())
    return list(takewhile(lambda parameter: id(parameter) not in in_lists, used))


def _used(encoder: PreTrainedModel) -> Callable[[nn.Parameter], bool]:
    """Return what tells a weight that helps to predict a token from those of other senses."""
    names = encoder.named_parameters()
    unused = {id(parameter) for name, parameter in names if is_unused(encoder, f".{name}")}
    return lambda parameter: id(parameter) not in unused


def _lists_of_layers(encoder: PreTrainedModel) -> dict[str, nn.ModuleList]:
    found, used = _outermost_lists(encoder.base_model), _used(encoder)
    return {name: layers for name, layers in found if any(map(used, layers.parameters()))}


def _outermost_lists(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """Yield the lists of modules that lie in no other one, with their paths."""
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        if isinstance(child, nn.ModuleList):
            yield path, child
        else:
            yield from _outermost_lists(child, path)
