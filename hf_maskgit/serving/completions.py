"""/v1/completions: texts continued, in OpenAI's words.

Letters: P prompt tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.decoding_prompts import ids_of_decoding
from ..core.generation_config_maskgit import MaskGitGenerationConfig
from ..core.noise import mix
from ..core.options import shown
from ..core.pipeline_infilling import holds_blank
from ..core.pipeline_splicing import continuation
from ..core.pipeline_text_generation import MaskGitTextGenerationPipeline
from ..core.unknown_tokens import counted_before
from .errors import BadRequest
from .fields import check_texts_asked, flag, seed_of
from .reader import Reader
from .tasks import Emit, Json, Reading, Task, head

_MOST_LOGPROBS = 5  # as OpenAI's


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        text: as it was typed.
        ids: (1, P) long.
    """

    text: str
    ids: Tensor


@dataclass(frozen=True)
class Choice:
    """One text that was written.

    Attributes:
        text: behind the prompt, up to a stop string.
        finish_reason: "stop" for one that ended, "length" for one that got all its tokens.
        ids: its tokens.
        log_probabilities: of each at the moment of its reveal.
        alternatives: of each the likeliest tokens of that moment, with their log-probabilities.
    """

    text: str
    finish_reason: str
    ids: list[int]
    log_probabilities: list[float]
    alternatives: list[dict[int, float]]


class Completions(Reader):
    """Reads requests for completions."""

    own = ("prompt", "stream", "stream_options", "echo", "logprobs")
    pipeline = MaskGitTextGenerationPipeline

    def read(self, fields: Json) -> Reading:
        """Understand a request, with every check that needs no pass."""
        stream, echo = flag(fields, "stream"), flag(fields, "echo")
        usage = _includes_usage(fields.pop("stream_options", None), stream)
        shows = _logprobs(fields.pop("logprobs", None))
        seed = seed_of(fields)
        if fields.get("temperature") == 0 and fields.get("do_sample") is None:
            del fields["temperature"]  # OpenAI's word for it
            fields["do_sample"] = False
        given = fields.pop("prompt", "")
        options, resolved = self._options(fields)
        options["output_alternatives"] = shows or 0
        prompts = self._prompts(given, resolved)
        copies = options.pop("num_return_sequences", None) or resolved.num_return_sequences
        check_texts_asked(len(prompts) * copies, self._limits)
        writer = Writer(self._model, self._tokenizer, options, resolved)
        seeds = [mix(seed, copy) for copy in range(copies)]
        size = 1 if stream else copies  # what streams goes by itself
        groups = [seeds[i : i + size] for i in range(0, copies, size)]
        tasks = [writer.task(p, group, stream) for p in prompts for group in groups]
        of_choices = [prompt for prompt in prompts for _ in range(copies)]
        own = head("cmpl", "text_completion", self._name), self._tokenizer, of_choices, copies
        words = _Words(*own, seed, echo, shows, usage)
        texts = [prompt.text for prompt in prompts]
        return Reading(tasks, words.answer, stream, words.tell, words.close, words.finish, texts)

    def _prompts(self, given: Any, resolved: MaskGitGenerationConfig) -> list[Prompt]:
        """Read texts, or lists of ids, one or several."""
        if isinstance(given, str) or (isinstance(given, list) and given and _is_id(given[0])):
            given = [given]
        if not isinstance(given, list) or not given:
            raise _no_prompt(given)
        prompts = [self._prompt(one, resolved) for one in given]
        mask = self._model.config.mask_token_id
        if any(bool((prompt.ids == mask).any()) for prompt in prompts):
            raise BadRequest(
                "The prompt holds masks, and a completion is what follows a prompt; send texts "
                "with masks to /v1/infill."
            )
        return prompts

    def _prompt(self, given: Any, resolved: MaskGitGenerationConfig) -> Prompt:
        if isinstance(given, str):
            if holds_blank(given):
                raise BadRequest(
                    f"The prompt {shown(given)} holds a blank, and a completion is what follows a "
                    "prompt; send texts with blanks to /v1/infill."
                )
            share = resolved.max_unknown_share
            read = self._pipeline.preprocess(given, max_unknown_share=share)
            real = read["attention_mask"][0].bool()
            return Prompt(given, read["input_ids"][:, real])
        if not (isinstance(given, list) and all(_is_id(one) for one in given)):
            raise _no_prompt(given)
        size = self._model.config.get_text_config().vocab_size
        strange = next((one for one in given if not 0 <= one < size), None)
        if strange is not None:
            raise BadRequest(
                f"`prompt` holds the token id {strange}; the vocabulary has 0 to {size - 1}."
            )
        text = self._tokenizer.decode(given, skip_special_tokens=True)
        return Prompt(text, torch.tensor([given], dtype=torch.long))


@dataclass(frozen=True)
class Writer:
    """Writes the texts of one request.

    Attributes:
        model: that the engine asks.
        tokenizer: its tokenizer.
        options: arguments of `generate`.
        resolved: the options as `generate` understands them.
    """

    model: Any
    tokenizer: Any
    options: Json
    resolved: MaskGitGenerationConfig

    def task(self, prompt: Prompt, seeds: list[int], stream: bool) -> Task:
        """Return the task of one prompt and some of its texts, whose seeds these are."""

        def work(emit: Emit) -> list[Choice]:
            streamer = Deltas(self.tokenizer, prompt, self._stops, emit) if stream else None
            with counted_before():  # by words, when the prompt was read
                output = self.model.generate(
                    prompt.ids.to(self.model.device),
                    **self.options,
                    num_return_sequences=len(seeds),
                    seed=seeds,
                    tokenizer=self.tokenizer,
                    streamer=streamer,
                    return_dict_in_generate=True,
                )
            return [self._choice(prompt, output, row) for row in range(len(seeds))]

        return Task(work, len(seeds))

    @property
    def _stops(self) -> list[str]:
        stops = self.resolved.stop_strings
        return [stops] if isinstance(stops, str) else list(stops or [])

    def _choice(self, prompt: Prompt, output: Any, row: int) -> Choice:
        size = prompt.ids.shape[1]
        new = slice(size, size + int(output.num_new_tokens[row]))
        written = output.reveal_steps[row, new] >= 0
        ids: list[int] = output.sequences[row, new][written].tolist()
        logs: list[float] = output.reveal_log_probabilities[row, new][written].tolist()
        others: list[dict[int, float]] = [{} for _ in ids]
        if output.alternatives is not None:
            pairs = output.alternatives, output.alternative_log_probabilities
            found = (each[row, new][written].tolist() for each in pairs)
            others = [
                {token: one for token, one in zip(*of_token, strict=True) if token >= 0}
                for of_token in zip(*found, strict=True)
            ]
        text = continuation(self.tokenizer, prompt.text, prompt.ids[0].tolist(), ids)
        kept = cut(text, self._stops)
        _, ends = ids_of_decoding(self.model.config, self.resolved)
        ended = kept != text or not bool(written.all()) or bool(set(ids) & set(ends))
        return Choice(kept, "stop" if ended else "length", ids, logs, others)


class Deltas:
    """A streamer that tells the text from the left, as far as it will not change any more.

    Args:
        tokenizer: of the ids.
        prompt: what the text follows.
        stops: strings before the first of which it ends.
        emit: told each further piece.
    """

    def __init__(self, tokenizer: Any, prompt: Prompt, stops: list[str], emit: Emit) -> None:
        self._tokenizer, self._prompt, self._stops, self._emit = tokenizer, prompt, stops, emit
        self._ids: list[int] | None = None
        self._told = ""

    def put(self, value: Tensor) -> None:
        """Take the prompt, and then the tokens as they are settled."""
        if self._ids is None:
            self._ids = []
            self._emit("")  # every check has passed
            return
        self._ids += value.tolist()
        known = self._prompt.ids[0].tolist()
        text = continuation(self._tokenizer, self._prompt.text, known, self._ids)
        certain = cut(text, self._stops)
        if certain == text:
            certain = _certain(text, self._stops)
        further = rest_of(certain, self._told)
        if further:
            self._emit(further)
            self._told += further

    def end(self) -> None:
        """Leave the rest to the end of the task, which knows the whole text."""


def _certain(text: str, stops: list[str]) -> str:
    """Hold back what a further token, or a stop string that has begun, may still change."""
    # A word may go on, and with it how it is joined to what stands before.
    text = text[: len(text.rstrip()) - len(text.rstrip().split()[-1])] if text.strip() else ""
    text = text.rstrip()
    starts = (stop[:n] for stop in stops for n in range(len(stop), 0, -1))
    begun = max((len(start) for start in starts if text.endswith(start)), default=0)
    return text[: len(text) - begun]


def rest_of(text: str, told: str) -> str | None:
    """Return what follows in a text behind what was told of it; None where that is no part of it.

    Whether a space stands in front a tokenizer decides by the whole text, so that it may have been
    told otherwise.
    """
    for whole, start in ((text, told), (text.lstrip(), told.lstrip())):
        if whole.startswith(start):
            return whole[len(start) :]
    return None


def cut(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first of the stop strings."""
    found = [text.index(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else text


@dataclass(frozen=True)
class _Words:
    """How the choices of one request are told.

    Attributes:
        head: what every answer begins with.
        tokenizer: of the ids.
        prompts: of each choice.
        copies: choices of a prompt.
        seed: of the request.
        echo: whether a text begins with its prompt.
        shows: of how many tokens of a place the log-probabilities are told, besides its own; None
            for not even that.
        usage: whether a stream ends with the numbers of tokens.
        told: what was told of each choice in a stream, with its prompt.
    """

    head: Json
    tokenizer: Any
    prompts: Sequence[Prompt]
    copies: int
    seed: int
    echo: bool
    shows: int | None
    usage: bool
    told: dict[int, str] = field(default_factory=dict)

    def answer(self, results: Sequence[list[Choice]]) -> Json:
        choices = [choice for written in results for choice in written]
        told = [
            self._choice(i, self._shown(i) + choice.text, choice)
            for i, choice in enumerate(choices)
        ]
        return {**self.head, "choices": told, "usage": self._usage(choices), "seed": self.seed}

    def tell(self, task: int, delta: str) -> list[Json]:
        if task not in self.told:
            self.told[task] = ""
            delta = self._shown(task) + delta
        if not delta:
            return []
        self.told[task] += delta
        return [self._chunk([self._choice(task, delta, None)])]

    def close(self, task: int, result: list[Choice]) -> list[Json]:
        shown = "" if task in self.told else self._shown(task)
        told = self.told.get(task, "").removeprefix(self._shown(task))
        rest = rest_of(result[0].text, told)
        if rest is None:  # what was sent cannot be taken back
            raise RuntimeError("A streamed text went on otherwise than it had begun.")
        rest = shown + rest
        return [self._chunk([self._choice(task, rest, result[0])])]

    def finish(self, results: Sequence[list[Choice]]) -> list[Json]:
        if not self.usage:
            return []
        choices = [choice for written in results for choice in written]
        return [{**self._chunk([]), "usage": self._usage(choices)}]

    def _chunk(self, choices: list[Json]) -> Json:
        return {**self.head, "choices": choices, "seed": self.seed}

    def _shown(self, index: int) -> str:
        return self.prompts[index].text if self.echo else ""

    def _choice(self, index: int, text: str, choice: Choice | None) -> Json:
        reason = None if choice is None else choice.finish_reason
        logprobs = self._logprobs(index, choice) if self.shows is not None and choice else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, index: int, choice: Choice) -> Json:
        """List the tokens that the text is of; where each begins is told by the text before it."""
        prompt = self.prompts[index]
        known, before = prompt.ids[0].tolist(), len(self._shown(index))
        lengths = [
            len(continuation(self.tokenizer, prompt.text, known, choice.ids[:i]))
            for i in range(len(choice.ids) + 1)
        ]
        # An end of text adds nothing to it, and behind a stop string stands nothing.
        kept = [
            i
            for i in range(len(choice.ids))
            if lengths[i + 1] > lengths[i] and lengths[i] < len(choice.text)
        ]
        return {
            "tokens": [self.tokenizer.decode([choice.ids[i]]) for i in kept],
            "token_logprobs": [choice.log_probabilities[i] for i in kept],
            "top_logprobs": [self._top(choice, i) for i in kept] if self.shows else None,
            "text_offset": [before + lengths[i] for i in kept],
        }

    def _top(self, choice: Choice, place: int) -> dict[str, float]:
        """Tell the likeliest tokens of a place, and the one that stands there."""
        own = {choice.ids[place]: choice.log_probabilities[place]}
        told: dict[str, float] = {}
        for token, log in {**choice.alternatives[place], **own}.items():
            told.setdefault(self.tokenizer.decode([token]), log)  # of equal words the likelier
        return told

    def _usage(self, choices: Sequence[Choice]) -> Json:
        read = sum(prompt.ids.shape[1] for prompt in self.prompts[:: self.copies])
        written = sum(len(choice.ids) for choice in choices)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }


def _is_id(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _no_prompt(given: Any) -> BadRequest:
    return BadRequest(
        f"`prompt` must be a text, a list of token ids, or a list of these, got {shown(given)}."
    )


def _logprobs(given: Any) -> int | None:
    if given is None or (type(given) is int and 0 <= given <= _MOST_LOGPROBS):
        return given
    raise BadRequest(
        f"`logprobs` must be an integer from 0 to {_MOST_LOGPROBS}: so many of the likeliest "
        "tokens are told of each place, in the pass in which its token was revealed; got "
        f"{shown(given)}."
    )


def _includes_usage(given: Any, stream: bool) -> bool:
    if given is None:
        return False
    if not stream or not isinstance(given, dict) or not set(given) <= {"include_usage"}:
        raise BadRequest(
            '`stream_options` goes with stream=true and may be {"include_usage": true}, got '
            f"{shown(given)}."
        )
    return flag(dict(given), "include_usage")
