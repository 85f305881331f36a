"""The model type `hf_maskgit` of the lm-evaluation-harness (EleutherAI, the package `lm_eval`).

    hf-maskgit lm_eval --model hf_maskgit --model_args pretrained=runs/verses --tasks my_task \
        --include_path tasks --batch_size 64

The harness has no plug-ins: its own command knows only what it comes with. `register` adds this
type, after which the harness's command line runs as ever; `scripts/harness.py` does both.

What it asks, and what is answered:

- `loglikelihood`: minus the bound on -log p(continuation | context), given its number of tokens, or
  with `likelihood=exact` log p itself, summed over orders;
- whether it is greedy: whether greedy decoding of as many masks writes it (`greedy_parts.py`);
- `loglikelihood_rolling`: minus the bound of the whole text, by sliding windows where it is long;
- `generate_until`: `generate`, whose text is cut at the first stop string.

All noise is keyed by the seed, the number of the document in its task and the context: no batch
size, order or cache changes a figure, and continuations of as many tokens meet the same masks.
"""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core.argument_checks import check_whole
from ..core.extras import needs
from ..core.noise import mix
from ..core.pipeline_splicing import continuation as text_behind
from ..core.trained_length import warn_of_length
from ..core.unknown_tokens import check_read, checked_limit, counted_before, read_ids_of, sum_of
from ..evaluation.bound import check_num_samples
from ..evaluation.exact import MOST_TOKENS
from ..evaluation.greedy_parts import written_greedily
from ..evaluation.pairs import framed_example, split_pair
from ..evaluation.part_costs import PartCost, part_costs
from ..evaluation.progress import ProgressBar
from ..evaluation.samplers import resolved_sampler
from ..evaluation.windows import windowed
from ..hub.loading import load_generator
from .lm_eval_arguments import (
    NAME,
    check_alone,
    check_arguments,
    checked_batch_size,
    device_of,
    options_of_generation,
)

logger = logging.getLogger(__name__)

LONGEST_DEFAULT = 512  # tokens; encoders without a limit of their own need one
_TOGETHER = 32  # requests; what is answered goes into the harness's cache


def register() -> None:
    """Add the model type `hf_maskgit` to those that the harness knows.

    Raises:
        ImportError: where the harness is not installed.
    """
    with needs("Tasks are those of the lm-evaluation-harness", "lm_eval"):
        from lm_eval.api.model import LM
        from lm_eval.api.registry import model_registry
    if NAME not in model_registry:
        model_registry.register(NAME, target=type("MaskGitLM", (Answers, LM), {}))


@dataclass(frozen=True)
class _Request:
    """What is judged for one request: the examples of its windows, and the keys of their masks."""

    args: tuple[Any, ...]
    examples: list[dict[str, Any]]
    keys: list[tuple[int, ...]]


class Answers:
    """What the harness asks of a model, to be combined with its class `LM`.

    Args:
        pretrained: a generator, or an encoder as it is: a folder or a name on the Hub.
        batch_size: masked texts per pass; the harness's own default is 1, which is slow.
        device: to run on; None takes the accelerator where there is one.
        dtype: of the weights, as for `from_pretrained`.
        likelihood: "bound" or "exact".
        num_samples: maskings per continuation; one with no more subsets is not estimated.
        most_tokens: of a continuation whose exact likelihood is asked for.
        max_length: tokens of a text, framing included; None is what the encoder takes, at most 512
            where it has no limit. What is longer loses the beginning of its context.
        window_stride: by which windows of a longer text move on; None is half of a window.
        max_unknown_share: largest share of the tokens of what is asked that may be unknown.
        seed: of masks and draws.
        max_batch_size: refused, as there is no automatic batch size.
        **others: refused.

    Raises:
        ValueError: for a value out of its range, an argument that does not exist, and as
            `load_generator`.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str | None = None,
        likelihood: str = "bound",
        num_samples: int = 64,
        most_tokens: int = MOST_TOKENS,
        max_length: int | None = None,
        window_stride: int | None = None,
        max_unknown_share: float | None = None,
        seed: int = 0,
        max_batch_size: int | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        check_alone()
        self._batch_size = checked_batch_size(batch_size, max_batch_size)
        check_arguments(pretrained, likelihood, others)
        check_num_samples(num_samples)
        for name, value in (("most_tokens", most_tokens), ("seed", seed)):
            check_whole(name, value, least=0 if name == "seed" else 1)
        self._limit = checked_limit(max_unknown_share)
        where = device_of(device)
        given: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
        self.model, self.tokenizer = load_generator(str(pretrained), device_map=where, **given)
        self._device, self._seed = self.model.device, seed
        self._costs = partial(
            part_costs,
            self.model,
            num_samples=num_samples,
            batch_size=self._batch_size,
            exact=likelihood == "exact",
            most_tokens=most_tokens,
        )
        config = self.model.config
        self._framing = list(config.prefix_ids or []), list(config.suffix_ids or [])
        self._room = self._checked_length(max_length) - sum(map(len, self._framing))
        self._stride = max(1, self._room // 2) if window_stride is None else window_stride
        check_whole("window_stride", self._stride, least=1, most=self._room)

    @property
    def tokenizer_name(self) -> str:
        """What the harness keys its cached requests by."""
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(self, *_: Any, **__: Any) -> str:
        """Refuse to.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "hf_maskgit frames texts as in training and applies no chat template; leave out "
            "--apply_chat_template and write the turns into the task's own texts."
        )

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Refuse a chat template, as `apply_chat_template` does; without one there is none."""
        return self.apply_chat_template() if chat_template else ""

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Answer (context, continuation): log p or its bound, and whether it is greedy."""
        asked, merged, cut = [], [], 0
        for request in requests:
            context, continuation = request.args
            pair = split_pair(self.tokenizer, context, continuation)
            merged += [(context, continuation)] if pair.merged else []
            key = self._key(request, pair.context_ids)
            room = self._room - len(pair.continuation_ids)
            if room < 0:
                ids, given = [*pair.context_ids, *pair.continuation_ids], len(pair.context_ids)
                asked.append(self._windows(request.args, ids, given, key))
                continue
            kept = pair.context_ids[max(0, len(pair.context_ids) - room) :]
            cut += len(kept) < len(pair.context_ids)
            example = framed_example(kept, pair.continuation_ids, *self._framing)
            asked.append(_Request(request.args, [example], [key]))
        self._warn(merged, cut, len(asked))

        def answers(costs: list[PartCost], some: list[_Request]) -> list[Any]:
            greedy = self._are_greedy(some)
            return [(-cost.nats, one) for cost, one in zip(costs, greedy, strict=True)]

        return self._answered("loglikelihood", asked, answers, disable_tqdm)

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Answer (text,): minus the bound on -log p of all its tokens, by windows."""
        asked = []
        for request in requests:
            pair = split_pair(self.tokenizer, "", request.args[0])
            key = self._key(request, pair.continuation_ids)
            asked.append(self._windows(request.args, pair.continuation_ids, 0, key))

        def answers(costs: list[PartCost], some: list[_Request]) -> list[Any]:
            return [-cost.nats for cost in costs]

        return self._answered("loglikelihood_rolling", asked, answers, disable_tqdm)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answer (context, options): what `generate` writes behind, up to the first stop string."""
        contexts = [self._ids(request.args[0]) for request in requests]
        self._check_known(contexts)
        times: dict[int, int] = {}
        kinds: dict[str, list[tuple[int, int]]] = {}  # of one call each: requests and their seeds
        for number, (request, ids) in enumerate(zip(requests, contexts, strict=True)):
            key = mix(*self._key(request, ids))
            again = times[key] = times.get(key, -1) + 1  # a task may ask for several texts
            kind = repr((bool(ids), sorted(request.args[1].items())))
            kinds.setdefault(kind, []).append((number, mix(key, again)))
        for (first, _), *_ in kinds.values():
            self._options(requests[first].args[1])  # refused before anything is written
        written: dict[int, str] = {}
        with ProgressBar("generate", len(requests), "text", shown=not disable_tqdm) as told:
            for rows in kinds.values():
                for some in _batches(rows, self._batch_size):
                    args = [requests[number].args for number, _ in some]
                    texts = self._continued(args, [seed for _, seed in some])
                    for (number, _), text, one in zip(some, texts, args, strict=True):
                        written[number] = text
                        self.cache_hook.add_partial("generate_until", one, text)  # type: ignore[attr-defined]
                    told.update(len(some))
        return [written[number] for number in range(len(requests))]

    def _answered(
        self,
        what: str,
        asked: Sequence[_Request],
        answers: Callable[[list[PartCost], list[_Request]], list[Any]],
        silent: bool,
    ) -> list[Any]:
        """Measure requests some at a time, the longest first, and tell the harness's cache."""
        self._check_known([each["input_ids"] for one in asked for each in one.examples])
        order = sorted(range(len(asked)), key=lambda i: -len(asked[i].examples[0]["input_ids"]))
        found: dict[int, Any] = {}
        errors = []
        with ProgressBar(what, len(asked), "request", shown=not silent) as told:
            for index in _batches(order, _TOGETHER):
                some = [asked[i] for i in index]
                costs = self._cost_of_each(some)
                for i, one, answer in zip(index, some, answers(costs, some), strict=True):
                    found[i] = answer
                    self.cache_hook.add_partial(what, one.args, answer)  # type: ignore[attr-defined]
                errors += [cost.std_error for cost in costs if cost.std_error]
                told.update(len(some))
        if errors:
            logger.info(
                "%d of %d bounds are estimated, with a standard error of %.2g nats on average and "
                "%.2g at most; a larger `num_samples` lowers it.",
                len(errors),
                len(asked),
                sum(errors) / len(errors),
                max(errors),
            )
        return [found[i] for i in range(len(asked))]

    def _cost_of_each(self, some: Sequence[_Request]) -> list[PartCost]:
        """Add up the costs of the windows of each request."""
        examples = [example for one in some for example in one.examples]
        costs = iter(self._costs(examples, [key for one in some for key in one.keys]))
        parts = [list(itertools.islice(costs, len(one.examples))) for one in some]
        return [
            PartCost(sum(c.nats for c in each), sum(c.std_error**2 for c in each) ** 0.5)
            for each in parts
        ]

    def _are_greedy(self, some: Sequence[_Request]) -> list[bool]:
        """Tell whether all windows of each request are written greedily."""
        examples = [example for one in some for example in one.examples]
        found = iter(written_greedily(self.model, examples, self._batch_size))
        windows = [list(itertools.islice(found, len(one.examples))) for one in some]
        return [all(each) for each in windows]

    def _continued(
        self, args: Sequence[tuple[str, Mapping[str, Any]]], seeds: list[int]
    ) -> list[str]:
        """Write behind contexts, all with the same options."""
        until, count, options = self._options(args[0][1])
        prefix, suffix = self._framing
        rows = [[*prefix, *self._ids(text)[-(self._room - count) :], *suffix] for text, _ in args]
        ids, real = _left_padded(rows, self.model.config.pad_token_id or 0)
        with counted_before():
            output: Any = self.model.generate(
                ids.to(self._device),
                real.to(self._device),
                max_new_tokens=count,  # at most, where the model finds lengths by itself
                seed=seeds,
                stop_strings=until or None,
                tokenizer=self.tokenizer,
                num_return_sequences=1,
                return_dict_in_generate=False,
                **options,
            )
        behind = output[:, ids.shape[1] :].tolist()
        return [
            _cut(text_behind(self.tokenizer, text, row, new), until)
            for (text, _), row, new in zip(args, rows, behind, strict=True)
        ]

    def _options(self, given: Mapping[str, Any]) -> tuple[list[str], int, dict[str, Any]]:
        """Read a task's options, see `options_of_generation`, and refuse what has no room."""
        until, count, options = options_of_generation(given)
        if not 0 < count < self._room:
            raise ValueError(
                f"The task asks for {count} new tokens, and `max_length` leaves "
                f"{self._room} to a context and them; set max_gen_toks in --gen_kwargs."
            )
        resolved_sampler(self.model, options)
        return until, count, options

    def _windows(
        self, args: tuple[Any, ...], ids: list[int], num_given: int, key: tuple[int, ...]
    ) -> _Request:
        """Judge the ids behind those given by windows that slide."""
        body = {"input_ids": ids, "maskable": [0] * num_given + [1] * (len(ids) - num_given)}
        length = self._room + sum(map(len, self._framing))
        found = windowed([body], *self._framing, max_length=length, stride=self._stride)
        for example in found.examples:  # framing is never judged
            prefix, suffix = map(len, self._framing)
            middle = example["maskable"][prefix : len(example["maskable"]) - suffix]
            example["maskable"] = [0] * prefix + middle + [0] * suffix
        return _Request(args, found.examples, [(*key, w) for w in range(len(found.examples))])

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _key(self, request: Any, ids: Sequence[int]) -> tuple[int, ...]:
        """Name the noise of a request: documents of a task differ though their context may not."""
        return (self._seed, getattr(request, "doc_id", None) or 0, *ids)

    def _checked_length(self, max_length: int | None) -> int:
        """Return how long a text may be, framing included."""
        most = self.model.max_positions
        length = most or LONGEST_DEFAULT if max_length is None else max_length
        least = 2 + sum(map(len, self._framing))
        check_whole("max_length", length, least=least, **({} if most is None else {"most": most}))
        return length

    def _check_known(self, texts: Sequence[Sequence[int]]) -> None:
        """Refuse texts that are mostly unknown to the tokenizer, and warn of long ones."""
        config = self.model.config
        rows = [torch.tensor([ids]) for ids in texts if ids]
        readings = [reading for ids in rows for reading in read_ids_of(config, ids, None)]
        check_read(sum_of(readings, "tokens"), "what the tasks ask", self._limit)
        warn_of_length(config, max(map(len, texts), default=0), "what is asked of it")

    def _warn(self, merged: Sequence[tuple[str, str]], cut: int, num: int) -> None:
        if merged:
            logger.warning(
                "In %d of %d pairs the last letters of the context and the first of the "
                "continuation make one token, such as %r and %r: it is judged with the "
                "continuation.",
                len(merged),
                num,
                merged[0][0][-20:],
                merged[0][1][:20],
            )
        if cut:
            logger.warning(
                "%d of %d contexts lost their beginning: with the framing and the continuation "
                "they are longer than `max_length`.",
                cut,
                num,
            )


def _left_padded(rows: Sequence[list[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Put rows side by side, (B, P) ids and 1 at real ones: new tokens follow in one column."""
    width = max(map(len, rows))
    ids = [[padding] * (width - len(row)) + row for row in rows]
    real = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, dtype=torch.long), torch.tensor(real, dtype=torch.long)


def _cut(text: str, until: Sequence[str]) -> str:
    """Cut a text before the first of the strings."""
    return text[: min([text.index(string) for string in until if string in text], default=None)]


def _batches(things: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield things in order, so many at a time."""
    for start in range(0, len(things), size):
        yield things[start : start + size]
