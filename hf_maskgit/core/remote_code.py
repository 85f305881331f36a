"""Checkpoints that carry this library's code and load without it."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from .checkpoint_files import LoadsWhole

# Named here, the pipelines belong to the code that transformers copies: it follows such imports.
from .pipeline_fill_mask import MaskGitFillMaskPipeline
from .pipeline_infilling import InfillingPipeline
from .pipeline_text_generation import MaskGitTextGenerationPipeline

_PIPELINES = {
    "infilling": (InfillingPipeline, "AutoModelForMaskedLM"),
    "text-generation": (MaskGitTextGenerationPipeline, "AutoModelForCausalLM"),
    "fill-mask": (MaskGitFillMaskPipeline, "AutoModelForMaskedLM"),
}
_MODEL_CLASSES = ("AutoModelForMaskedLM", "AutoModelForCausalLM")
_CODE_ENTRIES = ("auto_map", "custom_pipelines")  # of config.json: what transformers would run
_ABSENT = object()  # no attribute of that name


class CarriesCode(LoadsWhole):
    """A model that is saved with the code that it needs, where that is asked for."""

    _push_with_code: bool | None = None  # while `push_to_hub` calls `save_pretrained`

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *args: Any,
        with_code: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the model, and with it the code that it needs.

        A checkpoint with code loads without this package where `trust_remote_code=True` is given:
        by the Auto classes, and as a "text-generation", "fill-mask" or "infilling" pipeline. With
        the package it loads as any other, but these pipelines still want `trust_remote_code=True`.

        Args:
            save_directory: the folder.
            *args: as in transformers.
            with_code: carry the code. None carries it if the model itself was loaded from a
                checkpoint's code.
            **kwargs: as in transformers.

        Raises:
            ValueError: with code, for a subclass of the user's own.
        """
        if with_code is None:
            with_code = self._push_with_code
        with saved_code(self, with_code):
            super().save_pretrained(save_directory, *args, **kwargs)

    def push_to_hub(  # type: ignore[override]
        self, repo_id: str, *, with_code: bool | None = None, **kwargs: Any
    ) -> str:
        """Save the model to the Hub.

        Args:
            repo_id: "owner/name".
            with_code: see `save_pretrained`.
            **kwargs: as in transformers: `commit_message`, `private`, `revision`, `token`, ...

        Returns:
            Where the commit is.
        """
        self._push_with_code = with_code
        try:
            push: Any = super().push_to_hub
            return str(push(repo_id, **kwargs))
        finally:
            self._push_with_code = None


@contextlib.contextmanager
def saved_code(model: PreTrainedModel, with_code: bool | None) -> Iterator[None]:
    """Decide, for a `save_pretrained` within, whether the checkpoint carries its code.

    transformers copies the code of classes that are registered for it, and it registers classes
    that it loaded from a checkpoint. Within, that registration is what is asked for here; after it,
    everything is as before.

    Args:
        model: to be saved.
        with_code: None keeps what the model came with: code only if its class was loaded from a
            checkpoint.

    Raises:
        ValueError: for a class of the user's own, whose code would not be carried whole.
    """
    kind, config = type(model), model.config
    is_ours = kind.__module__.rpartition(".")[0] == __name__.rpartition(".")[0]
    came_with_code = is_ours and kind._auto_class is not None
    carries = came_with_code if with_code is None else with_code
    if carries and not is_ours:
        raise ValueError(
            f"with_code=True carries the classes of this library; {kind.__name__} is defined in "
            f"{kind.__module__!r}, which may need more. Save it without code."
        )
    entries = _config_entries(kind, type(config)) if carries else {}
    with (
        contextlib.ExitStack() as of_encoders,
        _attribute(kind, "_auto_class", _MODEL_CLASSES[0] if carries else None),
        # The model's modules hold that of the configuration, so the model alone copies.
        _attribute(type(config), "_auto_class", None),
        _attribute(config, "auto_map", entries.get("auto_map", _ABSENT)),
        _attribute(config, "custom_pipelines", entries.get("custom_pipelines", _ABSENT)),
    ):
        # Code that an encoder's own files named did not run here, and shall not run elsewhere.
        for encoder in _encoders_of(config):
            for entry in _CODE_ENTRIES:
                of_encoders.enter_context(_attribute(encoder, entry, _ABSENT))
        yield


def _encoders_of(config: Any) -> Iterator[Any]:
    """Yield the configurations within a configuration, however deep."""
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            yield value
            yield from _encoders_of(value)


def _config_entries(model_class: type, config_class: type) -> dict[str, Any]:
    """Make what config.json says of the code beside it."""
    pipelines = {
        task: {"impl": _reference(kind), "pt": [auto_class], "type": "text"}
        for task, (kind, auto_class) in _PIPELINES.items()
    }
    classes = {name: _reference(model_class) for name in _MODEL_CLASSES}
    return {
        "auto_map": {"AutoConfig": _reference(config_class), **classes},
        "custom_pipelines": pipelines,
    }


def _reference(kind: type) -> str:
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"


@contextlib.contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute, or take it away, for a while."""
    before = vars(owner).get(name, _ABSENT)
    _set(owner, name, value)
    try:
        yield
    finally:
        _set(owner, name, before)


def _set(owner: Any, name: str, value: Any) -> None:
    if value is not _ABSENT:
        setattr(owner, name, value)
    elif name in vars(owner):
        delattr(owner, name)
