"""A generator whose passes are asked of somebody else, who may ask for many at once."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from torch import Tensor

from ..core.attention_cache import CachedPass, set_aside, twin_of
from ..core.chunked_head import can_hold_back
from ..core.decoding import StepCallback
from ..core.decoding_state import DecodingState
from ..core.generation_maskgit import MaskGitGenerationMixin
from ..core.packed_weights import PackedWeights
from .passes import Question
from .steps import Found, Networks, Step, Wanted

_IN_SHARED_STEP: ContextVar[bool] = ContextVar("in_shared_step", default=False)  # of a greenlet


class SharedModel(MaskGitGenerationMixin):
    """A generator to `generate` and to the pipelines, which hands on every question it is asked.

    Args:
        generator: that it stands for.
        ask: answers a question, sooner or later.
        share: takes a step, or what a network has said for it: returns what the step wants to know,
            its rows after it, or None where it is to be made alone.
        pause: lets others go on; called after every pass that asked nothing.
        packs: the weights of all decodings; heads that have them in common run once for all rows of
            a step.
        max_positions: longest text in tokens that is taken, besides the model's own limit.
    """

    def __init__(
        self,
        generator: Any,
        ask: Callable[[Question], Any],
        share: Callable[[Step | Found], Wanted | DecodingState | None],
        pause: Callable[[], None],
        packs: PackedWeights | None = None,
        max_positions: int | None = None,
    ) -> None:
        self.generator, self._longest = generator, max_positions
        self.packed_weights, self._twin = packs, None
        self._ask, self._share, self._pause = ask, share, pause
        denoiser = getattr(generator, "denoiser", None)  # a stand-in of a model may have none
        self._holds_back = denoiser is not None and can_hold_back(generator, denoiser)

    def __getattr__(self, name: str) -> Any:
        """Be the model in all that is not said here."""
        if name.startswith("__") or name == "generator":  # while it is copied, it has none
            raise AttributeError(name)
        return getattr(self.generator, name)

    @property
    def max_positions(self) -> int | None:
        """Longest text in tokens: the model's own limit, or the server's."""
        limits = (self.generator.max_positions, self._longest)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def has_token_critic(self) -> bool:
        """Whether the model has a token critic."""
        return bool(self.generator.has_token_critic)

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **arguments: Any
    ) -> Any:
        """Ask for a pass of the denoiser, under the names of `MaskGitForMaskedLM.forward`."""
        own = {"input_ids": input_ids, "attention_mask": attention_mask}
        return self._ask(Question("denoiser", self._late_in_step({**own, **arguments})))

    def attention_twin(self) -> "SharedTwin":
        """Return what rows with an attention cache ask; it hands on their passes too."""
        if self._twin is None:
            self._twin = twin_of(self.generator)
        return SharedTwin(self, self._twin)

    def ask_cached(self, arguments: dict[str, Any], cached: CachedPass) -> Any:
        """Ask for a pass of rows with an attention cache."""
        own = self._late_in_step(arguments)
        return self._ask(Question("denoiser", own, cached, self._twin))

    def _late_in_step(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a pass; in a shared step, for one head of all its rows."""
        late = _IN_SHARED_STEP.get() and self._holds_back
        return {**arguments, "output_head_states": True} if late else arguments

    def score_tokens(
        self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, **kwargs: Any
    ) -> Tensor:
        """Ask for a pass of the token critic."""
        own = {"input_ids": input_ids, "attention_mask": attention_mask, "positions": positions}
        return self._ask(Question("critic", {**own, **kwargs})).scores

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Decode as the model does, and let others go on between passes."""
        callback: StepCallback | None = kwargs.pop("callback_on_step_end", None)

        def on_step_end(step: int, state: DecodingState) -> DecodingState | None:
            changed = None if callback is None else callback(step, state)
            self._pause()
            return changed

        return super().generate(*args, **kwargs, callback_on_step_end=on_step_end)

    def _step_fn(self, *args: Any) -> DecodingState:
        """Make a step of the sampler, together with others if there are any."""
        step = Step(*args)
        networks = Networks(step)
        told = self._share(step)
        before = _IN_SHARED_STEP.set(True)
        try:
            while isinstance(told, Wanted):
                told = self._share(networks.ask(told))
        finally:
            _IN_SHARED_STEP.reset(before)
        return step.alone(networks) if told is None else told

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """Prepare the arguments of a pass as the model does."""
        prepared: dict[str, Any] = self.generator.prepare_inputs_for_generation(input_ids, **kwargs)
        return prepared


class SharedTwin:
    """Stands for the twin of a model, and hands on what it is asked; see `caching`.

    Args:
        model: asks.
        twin: of its generator, the same for all decodings.
    """

    def __init__(self, model: SharedModel, twin: Any) -> None:
        self._model, self._twin = model, twin

    def __getattr__(self, name: str) -> Any:
        """Be the model in all that is not said here."""
        return getattr(self._model, name)

    def __call__(self, **arguments: Any) -> Any:
        """Ask for a pass, which others may share."""
        with set_aside() as cached:  # what this thread is at would be that of the next job
            return self._model.ask_cached(arguments, cached)
