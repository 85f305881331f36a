"""Texts that a generator writes from the same prompts and seeds, to be read while it learns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..core.decoding_lengths import NUM_TOKENS
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.noise import mix
from ..core.pipeline_infilling import check_no_blank
from ..core.sampler_choices import check_blocks
from ..core.text_reader import check_texts
from ..core.unknown_tokens import counted_before
from .batches import evaluating

NOTHING = ""  # the prompt of a text that is written from nothing
# Of a model and the tokens of the longest of some prompts: what a call names of their lengths.
_Room = Callable[[MaskGitForMaskedLM, int], dict[str, Any]]


@dataclass(frozen=True)
class SampleText:
    """A text that a generator wrote.

    Attributes:
        prompt: what it was given; "" for nothing.
        text: what became of it, without special tokens.
        seed: of its draws.
        nats_per_token: mean of -log p of the written tokens, each when it was revealed, by the
            model's own distribution without temperature and filters; None where none was written.
    """

    prompt: str
    text: str
    seed: int
    nats_per_token: float | None


def length_of_samples(model: MaskGitForMaskedLM) -> int:
    """Return how many tokens to write: what the model stores, at most as long as it has seen."""
    usual: int = model.resolve_options(None, None, {}).max_new_tokens
    longest = longest_of_training(model)
    return usual if longest is None else min(usual, max(1, longest))


def longest_of_training(model: MaskGitForMaskedLM) -> int | None:
    """Return how many tokens the longest text had that a model learned from, framing left out."""
    config = model.config
    framing = len(config.prefix_ids or []) + len(config.suffix_ids or [])
    return None if config.trained_length is None else config.trained_length - framing


def length_asked_for(model: MaskGitForMaskedLM) -> dict[str, Any]:
    """Return what a call names for texts from nothing to be as long as the model has them.

    Where it stores how lengths are found (`num_tokens`), and knows what that needs, a limit named
    in the call would cut them short, or be refused.
    """
    stored: Any = model.generation_config
    way = NUM_TOKENS[stored.num_tokens or "fixed"]
    if way.reads is not None and way.known_by(model.config):
        return {}
    return {"num_tokens": "fixed", "max_new_tokens": length_of_samples(model)}


def check_writes(model: MaskGitForMaskedLM) -> None:
    """Refuse stored options by which a model cannot write texts from nothing.

    Said before a training, and not by its first sample or its card.

    Raises:
        ValueError: as `generate`, for texts as long as the longest that it may be asked for.
    """
    most = length_asked_for(model).get("max_new_tokens", longest_of_training(model))
    resolved: Any = model.resolve_options(None, None, {})
    check_blocks(resolved, most or 0)


class TextWriter:
    """Writes the same few texts again and again, so that one sees what has changed.

    Three batches at most are decoded, with the options that the model stores: texts from nothing,
    see `length_asked_for`, prompts to continue, by as many tokens as `length_of_samples` leaves
    them, and those that hold the mask token, to fill.

    Args:
        model: knows its lengths.
        tokenizer: its own.
        prompts: to continue or, with mask tokens, to fill; none stands for one text from nothing.
        num_texts: texts per prompt, at least 1.
        seed: of all draws; torch's global generator is left alone.
        max_unknown_share: see `Tolerance`, of each prompt; None is its default.

    Raises:
        ValueError: for a prompt that is no text, has a blank, is mostly unknown to the tokenizer,
            or is longer than what the encoder takes.
    """

    def __init__(
        self,
        model: MaskGitForMaskedLM,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str] = (),
        num_texts: int = 1,
        seed: int = 0,
        max_unknown_share: float | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        prompts = list(prompts) or [NOTHING]
        for prompt in prompts:
            check_no_blank(prompt, "a training run")
        typed = [prompt for prompt in prompts if prompt]
        if typed:
            check_texts(tokenizer, typed, max_unknown_share)
        most = model.max_positions
        for prompt, ids in zip(prompts, tokenizer(prompts)["input_ids"], strict=True):
            room = 0 if tokenizer.mask_token in prompt else 1  # for a token to write
            if most is not None and len(ids) + room > most:
                raise ValueError(
                    f"The prompt {prompt[:40]!r} has {len(ids)} tokens, framing included, and the "
                    f"encoder takes {most} with what is written; shorten it."
                )
        self._requests = [
            (prompt, mix(seed, number, sample))
            for number, prompt in enumerate(prompts)
            for sample in range(num_texts)
        ]

    def write(self, model: MaskGitForMaskedLM) -> list[SampleText]:
        """Write all texts, in the order of the prompts; the model keeps its mode.

        Args:
            model: the one of the constructor, or with other weights.
        """
        written: dict[tuple[str, int], SampleText] = {}
        with evaluating(model), counted_before():  # prompts were, when they were looked at
            for room in (self._of_nothing, self._of_prompts, self._of_masked):
                group = [r for r in self._requests if self._room_for(r[0]) == room]
                if group:
                    texts = self._of_one_kind(model, group, room)
                    written.update(zip(group, texts, strict=True))
        return [written[request] for request in self._requests]

    def _of_one_kind(
        self, model: MaskGitForMaskedLM, requests: Sequence[tuple[str, int]], room: _Room
    ) -> Iterator[SampleText]:
        """Write texts of one kind, of which `room` says how long they are to be."""
        prompts = [prompt for prompt, _ in requests]
        inputs = self.tokenizer(
            prompts, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        output: Any = model.generate(
            **inputs.to(model.device),
            **room(model, inputs["input_ids"].shape[1]),
            seed=[seed for _, seed in requests],
            tokenizer=self.tokenizer,
            num_return_sequences=1,
            return_dict_in_generate=True,
        )
        texts = self.tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
        is_new = output.reveal_steps >= 0
        nats = -(output.reveal_log_probabilities * is_new).sum(-1) / is_new.sum(-1)
        for (prompt, seed), text, mean, any_new in zip(
            requests, texts, nats.tolist(), is_new.any(-1).tolist(), strict=True
        ):
            yield SampleText(prompt, text, seed, mean if any_new else None)

    def _room_for(self, prompt: str) -> _Room:
        if self.tokenizer.mask_token in prompt:
            return self._of_masked
        return self._of_prompts if prompt else self._of_nothing

    def _of_nothing(self, model: MaskGitForMaskedLM, longest: int) -> dict[str, Any]:
        return length_asked_for(model)

    def _of_masked(self, model: MaskGitForMaskedLM, longest: int) -> dict[str, Any]:
        return {"num_tokens": "fixed", "max_new_tokens": 0}

    def _of_prompts(self, model: MaskGitForMaskedLM, longest: int) -> dict[str, Any]:
        """Give all what the longest one, framing included, leaves; at least 1."""
        config = model.config
        limits = [length_of_samples(model)]
        if config.trained_length is not None:
            limits.append(config.trained_length - longest)
        if model.max_positions is not None:
            limits.append(model.max_positions - longest)
        return {"num_tokens": "fixed", "max_new_tokens": max(1, min(limits))}
