"""Turn any Hugging Face encoder into a generator by masked diffusion."""

from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

import transformers  # noqa: F401  itself, as threads that import it at the same time would fail

from .import_hooks import after_import
from .registration import register

if TYPE_CHECKING:
    from . import core as core
    from . import evaluation as evaluation
    from . import modeling_maskgit as modeling_maskgit
    from . import patterns as patterns
    from . import training as training
    from .core.configuration_maskgit import MaskGitConfig
    from .core.generation_config_maskgit import MaskGitGenerationConfig
    from .core.modeling_maskgit import MaskGitForMaskedLM
    from .core.pipeline_infilling import InfillingPipeline
    from .core.pipeline_text_generation import MaskGitTextGenerationPipeline
    from .core.schedules import get_schedule
    from .evaluation.bound import nelbo
    from .patterns.pattern import Pattern
    from .training.collator import DataCollatorForMaskGit

__version__ = "0.1.0.dev0"

__all__ = [
    "DataCollatorForMaskGit",
    "InfillingPipeline",
    "MaskGitConfig",
    "MaskGitForMaskedLM",
    "MaskGitGenerationConfig",
    "MaskGitTextGenerationPipeline",
    "Pattern",
    "get_schedule",
    "nelbo",
]

# Where each name is from. It is loaded when it is asked for: a model takes transformers seconds to
# import, and whoever loads none does not wait for it.
_HOMES = {
    "DataCollatorForMaskGit": "training.collator",
    "InfillingPipeline": "core.pipeline_infilling",
    "MaskGitConfig": "core.configuration_maskgit",
    "MaskGitForMaskedLM": "core.modeling_maskgit",
    "MaskGitGenerationConfig": "core.generation_config_maskgit",
    "MaskGitTextGenerationPipeline": "core.pipeline_text_generation",
    "Pattern": "patterns.pattern",
    "get_schedule": "core.schedules",
    "nelbo": "evaluation.bound",
}


if not TYPE_CHECKING:  # to a type checker every name would be there

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            return _submodule(__name__, name)
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *(module.name for module in iter_modules(__path__))})


def _submodule(package: str, name: str) -> ModuleType:
    """Import a module that is asked for as an attribute of its package, as if it had been before.

    Raises:
        AttributeError: where there is none of that name.
    """
    if name.startswith("_") or find_spec(f"{package}.{name}") is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return import_module(f"{package}.{name}")


def _find_submodules(folder: ModuleType) -> None:
    vars(folder)["__getattr__"] = partial(_submodule, folder.__name__)  # as above, for a folder


for _module in iter_modules(__path__, f"{__name__}."):
    if _module.ispkg:
        after_import(_module.name, _find_submodules)
register()
