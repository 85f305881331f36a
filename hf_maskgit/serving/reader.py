"""What reading a request begins with, at every address."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from transformers import Pipeline, PreTrainedTokenizerBase

from ..core.generation_config_maskgit import OPTIONS, MaskGitGenerationConfig
from ..core.pipeline_fields import compiled, compiled_one
from .fields import Limits, arguments_of, check_patterns, checked
from .tasks import Json, Reading


class Reader(ABC):
    """Reads the requests of one address: `begin`, then `compile` where it must, then `read`.

    What cannot be done each of them tells by a `Refusal`, `ValueError` or `TypeError`.

    Args:
        model: that the engine asks, an `Engine.model`.
        tokenizer: its tokenizer.
        name: under which the model is served.
        limits: of one request.

    Attributes:
        own: names of fields that are the address's own.
        pipeline: the pipeline of the library that does the same.
    """

    own: ClassVar[Sequence[str]]
    pipeline: ClassVar[type[Pipeline]]

    def __init__(self, model: Any, tokenizer: Any, name: str, limits: Limits) -> None:
        self._model, self._tokenizer, self._name, self._limits = model, tokenizer, name, limits
        self._pipeline: Any = self.pipeline(model.generator, tokenizer=tokenizer)
        self._pipeline.model = model

    def begin(self, body: Any) -> Json:
        """Return the fields that are set, from the JSON of a request."""
        fields = checked(body, self.own, self._name)
        check_patterns(fields, self._limits)
        return fields

    @staticmethod
    def must_compile(fields: Json) -> bool:
        """Tell whether there are patterns, which may take long to compile."""
        return fields.get("pattern") is not None or fields.get("patterns") is not None

    @staticmethod
    def compile(fields: Json, tokenizer: PreTrainedTokenizerBase) -> Json:
        """Return the fields with their patterns compiled.

        Args:
            fields: from `begin`.
            tokenizer: the model's, or a copy that nobody else asks meanwhile.
        """
        fields = dict(fields)
        if fields.get("pattern") is not None:
            fields["pattern"] = compiled_one(fields["pattern"], tokenizer)
        if fields.get("patterns") is not None:
            fields["patterns"] = compiled(fields["patterns"], tokenizer)
        return fields

    @abstractmethod
    def read(self, fields: Json) -> Reading:
        """Understand a request, with every check that needs no pass."""

    def _options(self, fields: Json) -> tuple[Json, MaskGitGenerationConfig]:
        """Return the arguments of `generate`, and the options as it understands them."""
        options = arguments_of(fields)
        named = {name: value for name, value in options.items() if name in OPTIONS}
        return options, self._model.resolve_options(None, options.get("preset"), named)
