"""Low-rank adapters (LoRA, arXiv 2106.09685) that learn in the place of a denoiser's weights.

They are peft's, put into the model itself, which stays the class that it is. A checkpoint of a run
holds the weights as they are while it trains; a finished model holds the sums W + (alpha / r) B A
under the names that it would have without adapters, and the adapters lie beside it as peft stores
them.
"""

import difflib
import importlib
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.encoder_kinds import is_unused
from ..core.extras import needs
from ..core.modeling_maskgit import MaskGitForMaskedLM
from .freezing import named_parameters
from .optimisation import OptimisationArguments
from .run_files import UNFINISHED, sync

ADAPTER_FOLDER = "adapter"
_NAME = "default"
_BASE = ".base_layer."
WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
# Before the names in an adapter's file: where peft's own model keeps the one that it wraps.
_PREFIX = "base_model.model."


def peft_module() -> Any:
    """Return the package that adapters are of.

    Raises:
        ImportError: when it is not installed.
    """
    with needs("`lora_r` needs the package peft", "peft", ", or leave the option out"):
        return importlib.import_module("peft")


def add_adapters(model: MaskGitForMaskedLM, options: OptimisationArguments, seed: int) -> None:
    """Put adapters into a denoiser; beside them only what is named or new learns there.

    Args:
        model: changed in place; parts outside the denoiser learn as before.
        options: `lora_r`, not 0, and those that go with it.
        seed: of the adapters' first weights; B is 0, so that the model is as it was.

    Raises:
        ValueError: without peft, and for names that nothing has.
    """
    peft = peft_module()
    learns = {name: p for name, p in model.named_parameters() if p.requires_grad}
    named = options.lora_modules_to_save or ()
    fully = list(named_parameters(model, named, "lora_modules_to_save"))
    # A head that the encoder came without, or rows of new tokens: nothing that could be adapted.
    new_weights = getattr(model.denoiser, "new_weights", ())
    fully += [model.denoiser.get_parameter(name) for name in new_weights]
    config = peft.LoraConfig(
        r=options.lora_r,
        lora_alpha=2 * options.lora_r if options.lora_alpha is None else options.lora_alpha,
        lora_dropout=options.lora_dropout or 0.0,
        target_modules=targets_of(model, options.lora_target_modules),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model, adapter_name=_NAME)
    kept = {id(parameter) for parameter in fully}
    for name, parameter in learns.items():  # peft has switched all but its own off
        parameter.requires_grad_(not name.startswith("denoiser.") or id(parameter) in kept)


def note_new_tables(encoder: Any) -> None:
    """Note in `new_weights` of an encoder, as `load_encoder` does, that its tables have new rows.

    Args:
        encoder: with its head, after its tables were resized.
    """
    tables = encoder.get_input_embeddings(), encoder.get_output_embeddings()
    new = {id(p) for table in tables if table is not None for p in table.parameters()}
    names = [name for name, p in encoder.named_parameters() if id(p) in new]
    encoder.new_weights = [*getattr(encoder, "new_weights", ()), *names]


def targets_of(model: MaskGitForMaskedLM, names: list[str] | None) -> list[str]:
    """Return the paths of the linear layers that get an adapter.

    Args:
        model: without adapters.
        names: ends of their paths, the last layer of the head excepted; None takes all in the body
            of the encoder that help to predict.

    Raises:
        ValueError: for a name that no linear layer has, or where there is none.
    """
    last = model.denoiser.get_output_embeddings()  # may be tied to the embeddings
    linear = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path.startswith("denoiser.") and module is not last
    ]
    if names is None:
        body = {id(module) for module in model.denoiser.base_model.modules()}
        found = [
            path
            for path in linear
            if id(model.get_submodule(path)) in body and not is_unused(model.denoiser, f".{path}.")
        ]
        if not found:
            raise ValueError(
                f"{type(model.denoiser).__name__} has no linear layers, so there is nothing that "
                "an adapter could be added to; leave `lora_r` out."
            )
        return found
    for name in names:
        if not any(f".{path}".endswith(f".{name}") for path in linear):
            ends = sorted({path.rpartition(".")[2] for path in linear})
            close = difflib.get_close_matches(name, ends, n=5, cutoff=0.3) or ends
            raise ValueError(
                f"`lora_target_modules` names {name!r}, which no linear layer of the denoiser is "
                f"called; close to it are {', '.join(close)}."
            )
    return [path for path in linear if any(f".{path}".endswith(f".{name}") for name in names)]


def merged(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as they would be called without adapters, with the adapters added.

    Args:
        model: has adapters, or none.
        weights: its `state_dict`, which is not changed.
    """
    if not has_adapters(model):
        return weights
    parts = {path: module for path, module in model.named_modules() if hasattr(module, "lora_A")}
    adapters = {f"{path}.lora_{one}.{_NAME}.weight" for path in parts for one in "AB"}
    found = {}
    for name, weight in weights.items():
        if name in adapters:
            continue
        path, base, rest = name.partition(_BASE)
        if base and rest == "weight":
            layer: Any = parts[path]
            weight = weight + layer.get_delta_weight(_NAME).to(weight)
        found[f"{path}.{rest}" if base else name] = weight
    return found


def taken_apart(model: Any, weights: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return merged weights as a model with adapters calls them, the adapters taken off again.

    Args:
        model: has adapters.
        weights: as `merged` returns them.
        folder: where `write_adapter` wrote the adapters that are in them.
    """
    adapters = read_adapter(folder)
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    found = {**weights, **adapters}
    for name in model.state_dict():
        path, base, rest = name.partition(_BASE)
        if not base or name not in learns:
            continue  # what does not learn is as it was, to the bit
        weight = weights[f"{path}.{rest}"]
        if rest == "weight":
            one, other = (adapters[f"{path}.lora_{part}.{_NAME}.weight"] for part in "BA")
            scale = model.get_submodule(path).scaling[_NAME]
            weight = weight - scale * (one @ other).to(weight)
        found[name] = weight
    return found


def has_adapters(model: nn.Module) -> bool:
    """Tell whether `add_adapters` was called for a model."""
    return hasattr(model, "peft_config")


def write_adapter(model: Any, weights: dict[str, Tensor], folder: Path) -> None:
    """Write the adapters of a model beside it, as `peft.PeftModel.from_pretrained` reads them.

    Args:
        model: has adapters.
        weights: its `state_dict`.
        folder: of the finished model; the adapters of another one there are replaced.
    """
    aside, target = folder / f"{ADAPTER_FOLDER}{UNFINISHED}", folder / ADAPTER_FOLDER
    shutil.rmtree(aside, ignore_errors=True)
    model.peft_config[_NAME].save_pretrained(str(aside))
    tensors = {
        _PREFIX + name.replace(f".{_NAME}.", "."): weight.contiguous()
        for name, weight in weights.items()
        if f".{_NAME}." in name and ".lora_" in name
    }
    save_file(tensors, str(aside / WEIGHTS_FILE), metadata={"format": "pt"})
    for path in aside.iterdir():
        sync(path)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Return what `write_adapter` wrote, under the names of a model that has adapters."""
    found = load_file(str(folder / ADAPTER_FOLDER / WEIGHTS_FILE))
    return {
        name.removeprefix(_PREFIX).removesuffix(".weight") + f".{_NAME}.weight": tensor
        for name, tensor in found.items()
    }


def num_parameters(model: Any) -> int:
    """Count the parameters of a model without its adapters, as it is saved."""
    return sum(p.numel() for name, p in model.named_parameters() if ".lora_" not in name)
