"""A generator by its name, for programs: no code of its folder runs, faults are named.

Where a program wants a generator it takes an ordinary encoder as well, wrapped as it is.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ..core.checkpoint_files import raised_in, read_json_object
from ..core.configuration_maskgit import MaskGitConfig
from ..core.modeling_maskgit import MaskGitForMaskedLM

logger = logging.getLogger(__name__)
_PACKAGE = Path(__file__).resolve().parents[1]
_ADAPTER = "adapter_config.json"  # of PEFT, which names the model that it belongs to
_TOKENIZER_CONFIG = "tokenizer_config.json"
# Files of a tokenizer that hold one JSON object.
_OF_TOKENIZER = (
    _TOKENIZER_CONFIG,
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
# What every tokenizer has at least one of: of the Rust library, of sentencepiece, or of its own.
_ANY_OF_TOKENIZER = ("tokenizer*", "*vocab*", "*.model")

# Files that decide what a model does; others, such as figures, may lie beside them.
_OF_MODEL = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    *_ANY_OF_TOKENIZER,
)


def load_generator(
    name: str | Path, *, allow_missing_weights: bool = False, **options: Any
) -> tuple[MaskGitForMaskedLM, PreTrainedTokenizerBase]:
    """Load a generator and its tokenizer; an encoder becomes one, and a line says so.

    Args:
        name: of a generator or an encoder: a folder or a name on the Hub.
        allow_missing_weights: as for `load_model`; of an encoder only the LM head may be missing,
            which is then new, with a warning.
        **options: of `from_pretrained`, such as `device_map`.

    Returns:
        The model in eval mode, and the tokenizer.

    Raises:
        ValueError: as for `load_model` and `load_tokenizer`, and for an encoder that cannot be a
            denoiser.
    """
    kind = _kind_of_encoder(name)
    if kind is None:
        model = load_model(name, allow_missing_weights=allow_missing_weights, **options)
        return model, load_tokenizer(name)
    tokenizer = load_tokenizer(name)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # a head that is new is the same one every time
            # False and not None, of which transformers would make a question to the user.
            model = MaskGitForMaskedLM.from_encoder(
                str(name), tokenizer=tokenizer, trust_remote_code=False, **options
            )
    # What can be wrong with the files of an encoder is as manifold as encoders are.
    except Exception as error:
        if raised_in(error, _PACKAGE):
            raise
        raise ValueError(
            f"The encoder {str(name)!r} of type {kind!r} cannot be loaded: {_in_one_line(error)}"
        ) from error
    logger.info(
        "%r is an encoder of type %r: it is used as a generator as it is, with its own tokenizer "
        "and without any training as one.",
        str(name),
        kind,
    )
    return model, tokenizer


def _kind_of_encoder(name: str | Path) -> str | None:
    """Return the model type of an encoder; None for a generator, and where none is named."""
    _check_place(name)
    if Path(name, _ADAPTER).is_file():  # it names the generator that it belongs to
        return None
    try:
        values, _ = PreTrainedConfig.get_config_dict(name)
    except (OSError, ValueError):  # `load_model` says what is wrong
        return None
    kind = values.get("model_type", MaskGitConfig.model_type)
    return kind if isinstance(kind, str) and kind != MaskGitConfig.model_type else None


def load_model(
    name: str | Path, *, allow_missing_weights: bool = False, **options: Any
) -> MaskGitForMaskedLM:
    """Load a generator.

    Args:
        name: a folder or a name on the Hub.
        allow_missing_weights: see `MaskGitForMaskedLM.from_pretrained`.
        **options: of `MaskGitForMaskedLM.from_pretrained`, such as `device_map`.

    Returns:
        The model in eval mode.

    Raises:
        ValueError: where there is no generator, or one of its files is missing or cannot be read.
    """
    _check_place(name)
    try:
        # Of an encoder this says how it becomes a generator; an adapter has no such file.
        if not Path(name, _ADAPTER).is_file():
            MaskGitConfig.get_config_dict(name)
        model: MaskGitForMaskedLM = MaskGitForMaskedLM.from_pretrained(
            name, allow_missing_weights=allow_missing_weights, **options
        )
    except OSError as error:
        raise ValueError(f"{str(name)!r} cannot be loaded: {_in_one_line(error)}") from error
    return model


def identity_of(name: str | Path, model: MaskGitForMaskedLM) -> str:
    """Name what a model is made of: the same for the same files, wherever they lie.

    Args:
        name: a folder or a name on the Hub.
        model: that was loaded from there.

    Returns:
        The name with its commit, or a checksum of the folder's files.
    """
    if not Path(name).is_dir():
        return f"{name}@{getattr(model.config, '_commit_hash', None)}"
    read = hashlib.sha256()
    found = {path for pattern in _OF_MODEL for path in Path(name).glob(pattern) if path.is_file()}
    for path in sorted(found):
        read.update(path.name.encode())
        with path.open("rb") as content:
            read.update(hashlib.file_digest(content, "sha256").digest())
    return f"sha256:{read.hexdigest()}"


def short_name(name: str | Path) -> str:
    """Return the last part of a model's name, also where that is "." or ends in "..".

    Args:
        name: a folder or a name on the Hub.
    """
    return Path(name).resolve().name


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer whose code is part of transformers; no other code is run.

    Args:
        name: a folder or a name on the Hub.

    Raises:
        ValueError: where there is no tokenizer, one of its files cannot be read, or it wants code
            of its own to be run.
    """
    _check_place(name)
    if os.path.isdir(name):
        # Of a known kind of encoder transformers would make an empty tokenizer out of nothing.
        if not any(next(Path(name).glob(pattern), None) for pattern in _ANY_OF_TOKENIZER):
            raise ValueError(
                f"{str(name)!r} holds no tokenizer, without which nobody can use the model; save "
                "the one it was trained with there: tokenizer.save_pretrained(folder)."
            )
        for path in (Path(name, file) for file in _OF_TOKENIZER):
            if path.is_file():
                read_json_object(path)
    try:
        # False and not None, of which transformers would make a question to the user.
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            # Some faults show when it is used: a longest text that is no number, say.
            tokenizer.batch_decode(
                tokenizer(["a"], padding=tokenizer.pad_token is not None)["input_ids"]
            )
    # The Rust below raises plain exceptions, and each kind of tokenizer has errors of its own.
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"The tokenizer of {str(name)!r} wants code of its own to be run (`auto_map` in "
                f"{_TOKENIZER_CONFIG!r}), and no code but this library's and that of transformers "
                "is run. Save a tokenizer of transformers beside the model: "
                "tokenizer.save_pretrained(folder)."
            ) from error
        raise ValueError(
            f"{str(name)!r} holds no tokenizer that can be loaded, without which nobody can use "
            "the model; save the one it was trained with there: tokenizer.save_pretrained(folder). "
            f"({type(error).__name__}: {_in_one_line(error)})"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(
            f"{str(name)!r} holds a {type(tokenizer).__name__} where a tokenizer should be; save "
            "the one the model was trained with there: tokenizer.save_pretrained(folder)."
        )
    return tokenizer


def _check_place(name: str | Path) -> None:
    """Refuse what is plainly a path and leads nowhere; transformers would ask the Hub for it."""
    path = Path(name)
    looks_like_path = path.is_absolute() or len(path.parts) > 2 or str(name).startswith((".", "~"))
    if path.is_file():
        raise ValueError(f"{str(name)!r} is a file; name the folder that holds the model.")
    if not path.is_dir() and looks_like_path:
        raise ValueError(
            f"There is no folder {str(name)!r}; check the path and the working directory, or give "
            "a name on the Hub, 'owner/name'."
        )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
