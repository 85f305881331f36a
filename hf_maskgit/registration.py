"""What transformers is told of this library: a configuration, what loads models, and pipelines."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import partial
from importlib import import_module
from typing import Any

from .import_hooks import after_import

__all__ = ["register"]

Load = Callable[[], tuple[Any, Any]]  # what gives a key and its value

_CORE = f"{__package__}.core"


def _configuration() -> tuple[Any, Any]:
    kind = _loaded("configuration_maskgit", "MaskGitConfig")
    return kind.model_type, kind


def _masked_lm() -> tuple[Any, Any]:
    return (
        _loaded("configuration_maskgit", "MaskGitConfig"),
        _loaded("modeling_maskgit", "MaskGitForMaskedLM"),
    )


def _causal_lm() -> tuple[Any, Any]:
    config, kind = _masked_lm()
    return config, _loaded("causal_lm", "as_causal_lm")(kind)


# The mappings of transformers' Auto classes, each in its module. Each gets an entry, whose key or,
# where that is a class, whose key's name is known before it is loaded.
CONFIGURATIONS = {"CONFIG_MAPPING": ("maskgit", _configuration)}
MODELS = {
    "MODEL_FOR_MASKED_LM_MAPPING": ("MaskGitConfig", _masked_lm),
    "MODEL_FOR_CAUSAL_LM_MAPPING": ("MaskGitConfig", _causal_lm),
}
# The pipeline of each task. transformers loads a class that is named when it is asked for.
PIPELINES = {
    "infilling": "pipeline_infilling.InfillingPipeline",
    "text-generation": "pipeline_text_generation.TextGenerationDispatch",
    "fill-mask": "pipeline_fill_mask.FillMaskDispatch",
}


def register() -> None:
    """Make the library known to transformers, of which nothing is imported for it.

    The Auto classes have their entries as if the classes were given to their `register`, and the
    classes are loaded when somebody looks.
    """
    after_import(
        "transformers.models.auto.configuration_auto", partial(add_entries, CONFIGURATIONS)
    )
    after_import("transformers.models.auto.modeling_auto", partial(add_entries, MODELS))
    after_import("transformers.pipelines", name_pipelines)


def add_entries(entries: Mapping[str, tuple[str, Load]], module: Any) -> None:
    """Add to mappings of Auto classes what is to be loaded when somebody looks.

    Args:
        entries: by the name of a mapping: the key, or its name, and what gives key and value.
        module: has the mappings.
    """
    for mapping_name, (name, load) in entries.items():
        mapping = getattr(module, mapping_name)
        if not isinstance(mapping._extra_content, _WithOneToLoad):
            mapping._extra_content = _WithOneToLoad(mapping, name, load)


def name_pipelines(module: Any) -> None:
    """Name the classes of our pipelines in the table of tasks.

    Args:
        module: has the table.
    """
    tasks = module.PIPELINE_REGISTRY.supported_tasks
    # An infilling model is loaded as any masked LM. The other tasks keep the model that each of
    # them stands for by default.
    tasks["infilling"] = {"pt": tasks["fill-mask"]["pt"], "type": "text"}
    for task, kind in PIPELINES.items():
        tasks[task]["impl"] = f"{_CORE}.{kind}"


def _loaded(module: str, name: str) -> Any:
    return getattr(import_module(f"{_CORE}.{module}"), name)


class _WithOneToLoad(MutableMapping[Any, Any]):
    """What is registered in an Auto class's mapping, and one entry that nobody looked at yet.

    It stands in place of the mapping's own dict, `_extra_content`, until somebody looks: at the
    entry itself, or at all there are. What others register for the same key counts, as it would if
    the entry had been there first.

    Args:
        mapping: of transformers.
        name: the entry's key, or the name of a class that is its key.
        load: gives the entry.
    """

    def __init__(self, mapping: Any, name: str, load: Load) -> None:
        self._mapping, self._name, self._load = mapping, name, load
        self._content: dict[Any, Any] = mapping._extra_content

    def _all(self) -> dict[Any, Any]:
        # Threads may come here at the same time: each finds the entry that the first one set. Only
        # then is the dict put back, so that none finds it without.
        if self._mapping._extra_content is self:
            key, value = self._load()
            self._content.setdefault(key, value)
            self._mapping._extra_content = self._content
        return self._content

    def _about(self, key: Any) -> dict[Any, Any]:
        return self._all() if getattr(key, "__name__", key) == self._name else self._content

    def __getitem__(self, key: Any) -> Any:
        return self._about(key)[key]

    def __contains__(self, key: object) -> bool:
        return key in self._about(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._content[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._about(key)[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
