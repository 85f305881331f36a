"""The files of a checkpoint: unreadable is not absent, and half a model is not a model."""

import contextlib
import dis
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import logging

from .encoder_kinds import is_unused

logger = logging.get_logger(__name__)

Options = TypeVar("Options", bound=GenerationConfig)

_OPTIONS_NAME = "generation_config.json"
_ADAPTER = "adapter_config.json"  # of PEFT, beside an adapter's weights
_WEIGHTS = "*.safetensors"
# Parts that a generator may get when it is loaded, by the start of their parameters' names, and
# the option that asks for them.
_PARTS = {
    "self_conditioning.": "self_cond",
    "critic.": "token_critic",
    "critic_head.": "token_critic",
}
_MOST_NAMES = 5  # of missing tensors in a sentence
_NEWER = (
    " Perhaps a newer release of hf_maskgit wrote the file: pip install --upgrade hf_maskgit, or "
    "take out of it what is unknown."
)
_OWN_FOLDER = Path(__file__).resolve().parent


class UnknownOptionError(TypeError, ValueError):
    """An option that this release does not have, of a call or of a file."""


def of_a_newer_release(error: Exception) -> str:
    """Say what to do where a file's option is unknown, behind the sentence that names it; else "".

    Args:
        error: as which it was refused.
    """
    if not isinstance(error, UnknownOptionError) or _NEWER in str(error):
        return ""
    return _NEWER


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of a checkpoint that maps names to values.

    Args:
        path: of a file that is there.

    Raises:
        ValueError: naming the file, where it cannot be read, is no JSON, holds anything but one
            object, or names an entry twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        values = json.loads(text, object_pairs_hook=_without_twins)
    # transformers takes an OSError for a file that is not there, so none is let through.
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"The file {str(path)!r} cannot be read as JSON: {_reason(error)}. Restore it, or save "
            "the model anew; only a file that is not there stands for the defaults."
        ) from error
    if not isinstance(values, dict):
        raise ValueError(
            f"The file {str(path)!r} must hold one JSON object, names and their values in braces, "
            f"and holds {_kind(values)}. Restore it, or save the model anew."
        )
    return values


def stored_options(kind: type[Options], name: str, **loading: Any) -> Options | None:
    """Load the options of decoding that a checkpoint stores.

    Args:
        kind: their class.
        name: of the checkpoint: a folder or a name on the Hub.
        **loading: further arguments of `from_pretrained`.

    Returns:
        The options; None where the checkpoint has no file of them.

    Raises:
        ValueError: naming the file, where it is there and cannot be used.
    """
    path = Path(name, loading.get("subfolder") or "", _OPTIONS_NAME)
    # A folder of that name, or a link that leads nowhere, is something that went wrong.
    if os.path.lexists(path) and not path.is_file():
        raise ValueError(f"{str(path)!r} is no file that can be read; restore it, or remove it.")
    try:
        return cast(Options, kind.from_pretrained(name, **loading))
    except OSError:
        logger.info("The checkpoint stores no generation options; using the defaults.")
        return None
    except (TypeError, ValueError) as error:
        if _OPTIONS_NAME in str(error):
            raise
        raise ValueError(
            f"The options of decoding in {_OPTIONS_NAME!r} of {str(name)!r} cannot be used: {error}"
            f"{of_a_newer_release(error)}"
        ) from error


class LoadsWhole(PreTrainedModel):
    """A model that is loaded whole, or not at all."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        allow_missing_weights: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a saved generator.

        Weights are read from safetensors files alone: the older format of torch is unpickled.

        Args:
            pretrained_model_name_or_path: a folder or a name on the Hub.
            *args: as in transformers.
            allow_missing_weights: load a checkpoint that lacks weights of the model all the same;
                what is missing is drawn at random.
            output_loading_info: return, as a second result, what was missing and what was too much.
            **kwargs: as in transformers; fields of the config replace the stored ones. A part that
                the stored config does not have is new, and not missing.

        Raises:
            ValueError: for files that cannot be read, a configuration of which no model can be
                built, or missing weights.
            OSError: for a checkpoint that is not there.
        """
        name = pretrained_model_name_or_path
        kwargs.setdefault("use_safetensors", True)
        load: Any = super().from_pretrained
        folder = str(name) if name is not None and os.path.isdir(name) else None
        with told_of(f"The checkpoint {str(name)!r}", folder):
            model, info = load(name, *args, output_loading_info=True, **kwargs)
        lacking = vars(model).pop("_lacking", info["missing_keys"])
        missing = sorted(key for key in lacking if not is_unused(model.denoiser, f".{key}"))
        if missing and not allow_missing_weights:
            asked = _new_parts(cls, name, model.config, kwargs)
            missing = [key for key in missing if not key.startswith(asked)]
            if missing:
                raise ValueError(_half_a_model(name, missing))
        return (model, info) if output_loading_info else model

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        super()._adjust_missing_and_unexpected_keys(loading_info)
        # Where an adapter is loaded as well, only what that lacks reaches the caller.
        vars(self)["_lacking"] = set(loading_info.missing_keys)


def broken_weights(folder: str | os.PathLike[str]) -> str | None:
    """Say in a sentence which safetensors file of a folder is not whole; None where all are.

    Only headers are read: a file is as long as its header says, or it is cut off.
    """
    for path in sorted(Path(folder).glob(_WEIGHTS)):
        reason = _damage(path)
        if reason is not None:
            return (
                f"The file {str(path)!r} {reason}. Copy or download it again, or save the model "
                "anew."
            )
    return None


def _damage(path: Path) -> str | None:
    # The format: 8 bytes that count those of the header, the header as JSON, the numbers.
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return f"is cut off or no safetensors file: it ends after {size:,} bytes"
        try:
            header = json.loads(file.read(length))
            end = max(
                (t["data_offsets"][1] for k, t in header.items() if k != "__metadata__"), default=0
            )
            expected = 8 + length + int(end)
        except (ValueError, TypeError, LookupError, AttributeError):
            return "is no safetensors file: its header cannot be read"
    if size != expected:
        return f"is cut off or damaged: it has {size:,} bytes and its header tells of {expected:,}"
    return None


@contextlib.contextmanager
def told_of(what: str, broken_in: str | None = None) -> Iterator[None]:
    """Tell in a sentence what goes wrong within, where others would show a traceback.

    Left as they are: our own sentences, files that are not there, packages that are not installed,
    memory that is full, arguments that nobody knows.

    Args:
        what: cannot be loaded.
        broken_in: folder whose weights are looked at when it goes wrong.

    Raises:
        ValueError: saying what was wrong with it.
    """
    try:
        yield
    except Exception as error:
        if newer := of_a_newer_release(error):
            raise UnknownOptionError(f"{error}{newer}") from error
        broken = None if broken_in is None else broken_weights(broken_in)
        if broken is not None:
            raise ValueError(broken) from error
        plain = isinstance(error, OSError | ImportError | MemoryError | torch.OutOfMemoryError)
        unknown = isinstance(error, TypeError) and "unexpected keyword argument" in str(error)
        if plain or unknown or raised_in(error, _OWN_FOLDER):
            raise
        raise ValueError(
            f"{what} cannot be loaded ({type(error).__name__}: {_reason(error)}). Its config.json "
            "and its weights must be those that were saved together; restore them, or save the "
            "model anew."
        ) from error


def built_of(build: Callable[..., Any], stored: dict[str, Any], given: dict[str, Any]) -> Any:
    """Build a configuration, and tell what is stored from what a call gives where one is wrong.

    Args:
        build: takes what is stored, and options by their names.
        stored: of a checkpoint.
        given: options that replace it.

    Raises:
        ValueError: for what is stored, see `told_of`.
        TypeError: for an option of the call that is of another kind.
    """
    try:
        return build(dict(stored), **given)
    except Exception as error:
        with told_of("The configuration of the checkpoint"):
            build(dict(stored))
        if raised_in(error, _OWN_FOLDER):
            raise
        raise TypeError(
            "An option that is given beside the checkpoint is of another kind than the "
            f"configuration takes ({_reason(error)})."
        ) from error


def raised_in(error: BaseException, *folders: Path) -> bool:
    """Tell whether a `raise` in one of the folders is where an error began, so it is a sentence.

    Torch raises errors of its own below the last line of Python, so to know the line's file is not
    enough: it has to be a `raise`.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code = traceback.tb_frame.f_code
    raised = code.co_code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    origin = Path(code.co_filename).resolve()
    return raised and any(origin.is_relative_to(folder) for folder in folders)


def _new_parts(
    kind: type[PreTrainedModel], name: Any, config: Any, kwargs: dict[str, Any]
) -> tuple[str, ...]:
    """Return the starts of the names of parts that the model has and the stored config has not."""
    stored: dict[str, Any] = {}
    if name is not None and Path(name, _ADAPTER).is_file():  # beside it lies no config
        stored = {option: None if option in kwargs else True for option in _PARTS.values()}
    elif name is not None:
        places = "cache_dir force_download local_files_only token revision subfolder".split()
        given = {key: kwargs[key] for key in places if key in kwargs}
        stored = cast(Any, kind.config_class).get_config_dict(name, **given)[0]
    return tuple(
        start
        for start, option in _PARTS.items()
        if getattr(config, option) and not stored.get(option)
    )


def _half_a_model(name: Any, missing: list[str]) -> str:
    shown = ", ".join(missing[:_MOST_NAMES])
    others = f" and {len(missing) - _MOST_NAMES:,} more" if len(missing) > _MOST_NAMES else ""
    where = "The weights given" if name is None else f"The checkpoint {str(name)!r}"
    verb = "lack" if name is None else "lacks"
    return (
        f"{where} {verb} {len(missing):,} of the model's tensors: {shown}{others}. They would be "
        "drawn at random. Copy or download the checkpoint again; to load it all the same, pass "
        "allow_missing_weights=True to from_pretrained()."
    )


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make one JSON object; the parser itself would take the last of two and say nothing."""
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"it names {twice[0]!r} twice")
    return dict(pairs)


def _reason(error: Exception) -> str:
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(words.split()).rstrip(".")


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
