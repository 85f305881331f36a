"""What of a model is not to learn: the part that a run leaves out, and what it names."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from ..core.modeling_maskgit import MaskGitForMaskedLM
from .layers import embeddings_of


def _head_of(model: MaskGitForMaskedLM) -> list[nn.Parameter]:
    body = {id(parameter) for parameter in model.denoiser.base_model.parameters()}
    return [p for p in model.denoiser.parameters() if id(p) not in body]


# Parts of the denoiser that have a name whatever its kind. A head's last layer that is tied to the
# embeddings is one with them.
PARTS: dict[str, Callable[[MaskGitForMaskedLM], Iterable[nn.Parameter]]] = {
    "embeddings": lambda model: embeddings_of(model.denoiser),
    "encoder": lambda model: model.denoiser.base_model.parameters(),
    "head": _head_of,
}


def freeze_left_out(model: MaskGitForMaskedLM, train: str) -> None:
    """Switch the gradient off for the part of a model that is not to learn.

    Processes that train together would wait for its gradients.

    Args:
        model: changed in place.
        train: "both", "denoiser" or "critic".

    Raises:
        ValueError: for the critic of a model that has none.
    """
    if train == "critic" and not model.has_token_critic:
        raise ValueError(
            "train='critic' needs a token critic, and the model has none; set `token_critic` to "
            "'self' or 'separate'."
        )
    left_out: dict[str, list[nn.Module | None]] = {
        "both": [],
        "denoiser": [model.critic, model.critic_head],
        "critic": [model.denoiser, model.self_conditioning],
    }
    for part in left_out[train]:
        if part is not None:
            part.requires_grad_(False)


def freeze_named(model: MaskGitForMaskedLM, names: Sequence[str]) -> None:
    """Switch the gradient off for what is named.

    Args:
        model: changed in place.
        names: parts ("embeddings", "encoder", "head"), modules or weights by their path such as
            "denoiser.bert.encoder.layer.0", or patterns such as "*.layer.[0-5].*".

    Raises:
        ValueError: for a name that nothing has, or when nothing would learn.
    """
    for parameter in named_parameters(model, names, "freeze"):
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"With `freeze` {', '.join(names)} nothing of the model would learn; name less."
        )


def named_parameters(
    model: MaskGitForMaskedLM, names: Sequence[str], option: str
) -> Iterator[nn.Parameter]:
    """Yield the parameters that names mean, see `freeze_named`.

    Args:
        model: has them.
        names: parts, paths or patterns.
        option: that the names come from, for the error.

    Raises:
        ValueError: for a name that nothing has.
    """
    parameters = dict(model.named_parameters())
    for name in names:
        found = list(PARTS[name](model)) if name in PARTS else []
        found = found or [
            parameter
            for path, parameter in parameters.items()
            if fnmatchcase(path, name) or path.startswith(f"{name}.")
        ]
        if not found:
            raise ValueError(_nothing_named(option, name, list(parameters)))
        yield from found


def _nothing_named(option: str, name: str, paths: list[str]) -> str:
    steps = [path.split(".") for path in paths]
    modules = {".".join(parts[:end]) for parts in steps for end in range(1, len(parts) + 1)}
    close = difflib.get_close_matches(name, sorted(modules), n=3, cutoff=0.3) or paths[:1]
    return (
        f"`{option}` names {name!r}, which nothing in the model has. It can name a part "
        f"({', '.join(PARTS)}), a module or a weight by its path, or a pattern of paths with *; "
        f"close to it are {', '.join(map(repr, close))}."
    )
