"""Blanks with patterns: what they are compiled from, which lengths they take, and their joint law.

Letters: W places from the first mask of a text to its last, Q states, C classes, V vocabulary, N
masks.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .argument_checks import kind_of
from .blank_lengths import Blank, prior_nats
from .decoding_constraints import AllowedTokens
from .decoding_pattern_lengths import log_mass_of
from .decoding_prompts import Given, pack_prompts
from .decoding_start import Asked, begin
from .extras import needs
from .generation_config_maskgit import MaskGitGenerationConfig
from .generation_maskgit import make_sampler
from .length_law import pick
from .noise import keyed_generator
from .pattern_automaton import MOST_STATES, Automaton, checked_size
from .pipeline_blanks import Holes, Template
from .pipeline_drafts import Draft, padded
from .token_pattern import TokenPattern, as_pattern
from .tokenizer_memory import per_tokenizer

_MASS_STREAM = 0x6D617373  # tells these draws from those of `generate` under the same seed
_MOST_COMPILED = 32  # patterns that are kept for a tokenizer; each takes a few MiB at most
_AT_ONCE = 16  # texts of one pass: every mask of each has a row of the vocabulary
_KINDS: dict[type, str] = {str: "from_regex", Mapping: "from_json_schema", Sequence: "from_choices"}


def compiled(patterns: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, TokenPattern]:
    """Compile the patterns of named blanks.

    Args:
        patterns: by name a Pattern, a regular expression (str), a JSON schema (dict) or a list of
            texts to choose from.
        tokenizer: the model's.

    Raises:
        ImportError: where something must be compiled and hf_maskgit is not installed.
        ValueError: for what is no pattern.
    """
    if not isinstance(patterns, Mapping):
        raise ValueError(
            "`patterns` must be a dict from the name of a blank to its pattern, got "
            f"{kind_of(patterns)}."
        )
    return {
        name: compiled_one(given, tokenizer, f"The pattern of {{{name}}}")
        for name, given in patterns.items()
    }


def compiled_one(
    given: Any, tokenizer: PreTrainedTokenizerBase, called: str = "The `pattern`"
) -> TokenPattern:
    """Compile one pattern, see `compiled`.

    Args:
        given: a Pattern, or what one is compiled from.
        tokenizer: the model's.
        called: what sentences call it.

    Raises:
        ImportError: where something must be compiled and hf_maskgit is not installed.
        ValueError: for what is no pattern.
    """
    if hasattr(given, "automaton"):
        pattern = as_pattern(given)
        pattern.check_tokenizer(tokenizer)
        return pattern
    how = next((how for kind, how in _KINDS.items() if isinstance(given, kind)), None)
    if how is None:
        raise ValueError(
            f"{called} must be a Pattern, a regular expression (str), a JSON "
            f"schema (dict) or a list of texts, got {kind_of(given)}."
        )
    # The code in a checkpoint cannot.
    what = f"{called} must be compiled, which is done by the package hf_maskgit"
    with needs(what, "patterns", ", or give a Pattern that was saved and loaded"):
        compiler = importlib.import_module("hf_maskgit").Pattern
    memory, key = _memory(tokenizer), _key(how, given)
    try:
        known = key is not None and key in memory
        pattern = memory.pop(key) if known else as_pattern(getattr(compiler, how)(given, tokenizer))
    except ValueError as error:
        raise ValueError(f"{called} is none: {error}") from error
    if key is not None:
        memory[key] = pattern  # now the last that was used
        while len(memory) > _MOST_COMPILED:
            del memory[next(iter(memory))]
    return pattern


@per_tokenizer
def _memory(tokenizer: PreTrainedTokenizerBase) -> dict[tuple[Any, ...] | None, TokenPattern]:
    """Return the patterns that were compiled for a tokenizer, the one used last at the end."""
    return {}


def _key(how: str, given: Any) -> tuple[Any, ...] | None:
    """Return what tells patterns apart before they are compiled; None for what cannot be told."""
    if isinstance(given, str):
        return how, given
    try:
        # Not sorted: the texts of a schema have its properties in its order.
        return how, json.dumps(dict(given) if isinstance(given, Mapping) else list(given))
    except (TypeError, ValueError):
        return None  # which the compiler refuses


def check_names(holes: Holes, patterns: Mapping[str, TokenPattern]) -> None:
    """Refuse names that stand for two blanks, and patterns that stand for none.

    Raises:
        ValueError: naming them.
    """
    names = [name for name in holes.names if name is not None]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"The text has two blanks with the name {{{twice}}}; a field has one value, so give "
            "each its own name."
        )
    unknown = next((name for name in patterns if name not in names), None)
    if unknown is not None:
        named = ", ".join(f"{{{name}}}" for name in names) or "none"
        raise ValueError(
            f"`patterns` names {unknown!r}, and the text has no such blank; its named blanks are "
            f"{named}."
        )


def fitting_lengths(
    blanks: Sequence[Blank], patterns: Sequence[TokenPattern | None], most: int
) -> dict[int, list[int]]:
    """Tell which lengths the blanks with patterns may have, by the number of the blank.

    Args:
        blanks: their ranges; (1, None) for one that names none.
        patterns: of each, None for none.
        most: tokens that the encoder takes.

    Raises:
        ValueError: for a blank none of whose lengths its pattern takes, or with no limit.
    """
    fitting = {}
    for number, (blank, pattern) in enumerate(zip(blanks, patterns, strict=True)):
        if pattern is None:
            continue
        high = pattern.longest if blank.high is None else blank.high
        if high is None:
            raise ValueError(
                f"{pattern!r} takes any number of tokens from {pattern.shortest}, so its blank "
                "needs a range, such as {name:1-8}."
            )
        possible = pattern.lengths(min(high, most)).tolist()
        fitting[number] = [n for n, fits in enumerate(possible) if fits and n >= max(1, blank.low)]
        if not fitting[number]:
            longest = "any number" if pattern.longest is None else str(pattern.longest)
            asked = str(blank.low) if blank.low == blank.high else f"{blank.low} to {blank.high}"
            asked = f"{blank.low} or more" if blank.high is None else asked
            raise ValueError(
                f"{pattern!r} takes from {pattern.shortest} to {longest} tokens, and its blank "
                f"has {asked} (one at least, and the encoder takes {most}), none of which fits; "
                "give the blank another length, or none."
            )
    return fitting


def of_row(
    template: Template, ids: Sequence[int], patterns: Mapping[int, TokenPattern]
) -> TokenPattern | None:
    """Put the patterns of a text's spans together: what all from its first mask to its last is.

    Args:
        template: where the spans stand.
        ids: the tokens.
        patterns: by the number of the span.
    """
    if not patterns:
        return None
    if len(template.spans) == 1:
        return patterns[0]
    size = max(len(pattern.automaton.class_of) for pattern in patterns.values())
    # What is known between two spans is nobody's business: there, anything is allowed.
    parts: list[tuple[Automaton | None, int]] = []
    end = template.spans[0][0]
    for number, (start, stop) in enumerate(template.spans):
        parts.append((None, start - end))
        own = patterns.get(number)
        parts.append((None if own is None else own.in_vocabulary(size), stop - start))
        end = stop
    first = next(iter(patterns.values()))
    source = ", then ".join(pattern.source for pattern in patterns.values())
    return TokenPattern(
        joined(parts, max(size, max(ids) + 1)), source, first.fingerprint, first.mask_token_id
    )


def joined(parts: Sequence[tuple[Automaton | None, int]], vocab_size: int) -> Automaton:
    """Make the automaton of parts one behind the other, each of so many tokens.

    The number of tokens says where one part ends and the next begins, so that a state is a place
    and a state of the part that it lies in, and nothing is ambiguous.

    Args:
        parts: each a language, None for any tokens, and its number of tokens.
        vocab_size: V.

    Raises:
        ValueError: for too many states.
    """
    languages = [part for part, _ in parts if part is not None]
    filled = [
        torch.cat([a.class_of, a.class_of.new_zeros(vocab_size - len(a.class_of))])
        for a in languages
    ]
    # A class of all together for every choice of a class of each.
    choices, class_of = torch.stack(filled).unique(dim=1, return_inverse=True)  # (parts, C)
    own = iter(choices)
    rows: list[Tensor] = []  # of the states so far, where each leads
    for language, count in parts:
        if language is None:
            any_token = torch.arange(1, count + 1)[:, None] + len(rows)
            rows += list(any_token.expand(count, choices.shape[1]))
        elif count:
            rows += _unrolled(language, count, len(rows), next(own))
        if len(rows) > MOST_STATES:
            raise ValueError(
                f"The patterns of the text's blanks make, in these lengths, an automaton of more "
                f"than {MOST_STATES:,} states, which is the limit. Give the blanks shorter ranges, "
                "or ask less."
            )
    # No state is of no use, so that nothing is left to make smaller.
    step = torch.stack([*rows, torch.full_like(rows[0], -1)])
    step = torch.cat([torch.full((len(step), 1), -1), step], 1)  # `NEVER`, of no token
    final = torch.arange(len(step)) == len(rows)
    step = step.masked_fill(step < 0, len(step))
    return checked_size(Automaton(step, final, class_of + 1, 0))


def _unrolled(language: Automaton, count: int, base: int, classes: Tensor) -> list[Tensor]:
    """Return where each state of a part leads, -1 for nowhere: state by state, place by place.

    Args:
        language: of the part.
        count: its tokens.
        base: the number of its first state.
        classes: (C,) long, the language's own class for each of all together.
    """
    nowhere = language.nowhere
    step = torch.cat([language.step[:, classes], torch.full((1, len(classes)), nowhere)])
    ends = [torch.cat([language.final, torch.zeros(1, dtype=torch.bool)])]
    for _ in range(count):  # from which states so many tokens lead to an end
        ends.insert(0, ends[0][step].any(1))
    reached = torch.zeros_like(ends[0])
    reached[language.start] = True
    rows: list[Tensor] = []
    for place in range(count):
        states = (reached & ends[place]).nonzero().squeeze(1)
        behind = step[states]
        reached = torch.zeros_like(reached).index_fill(0, behind.flatten(), True) & ends[place + 1]
        # All ends of the last token are one state: that before the next part.
        last = place == count - 1
        number = reached.long().cumsum(0) - 1 if not last else torch.zeros_like(reached).long()
        below = base + len(rows) + len(states)
        rows += list(torch.where(reached[behind], below + number[behind], -1))
        if len(rows) > MOST_STATES:
            break  # the caller refuses it
    return rows


def by_mass(
    texts: Sequence[Sequence[Draft]],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    keys: Sequence[int] | None,
    options: MaskGitGenerationConfig,
    allowed: Sequence[Any] | None = None,
) -> list[list[Draft]]:
    """Choose the lengths of one text's blanks by how much of the first pass its patterns take.

    A choice has the probability with which the first pass, every blank masked, writes a text of
    the patterns, times (h + 1), h the training texts of that length, where they are known.

    Args:
        texts: of each returned copy of the text the drafts to choose from, the same for all.
        model: predicts.
        tokenizer: its padding.
        keys: of each copy, for the draw; None takes the likeliest.
        options: of decoding, resolved.
        allowed: of each copy what it may hold, see `log_masses`; None for anything.

    Returns:
        The one draft of each copy.
    """
    drafts = texts[0]
    if len(drafts) == 1:
        return [list(of_copy) for of_copy in texts]
    prior = torch.tensor(prior_nats(model.config, [draft.length for draft in drafts])).double()
    known: dict[int, Tensor] = {}  # copies that may hold the same have the same masses
    chosen = []
    for number in range(len(texts)):
        may_hold = None if allowed is None else allowed[number]
        if id(may_hold) not in known:
            known[id(may_hold)] = log_masses(drafts, model, tokenizer, options, may_hold) - prior
        logs = known[id(may_hold)]
        chosen.append([drafts[_picked(logs, None if keys is None else keys[number])]])
    return chosen


def _picked(logs: Tensor, key: int | None) -> int:
    """Draw one in proportion to exp(logs), (K,); without a key take the first of the likeliest."""
    if not bool(logs.isfinite().any()):
        return 0  # which `generate` refuses, saying why
    if key is None:
        return int(logs.argmax())
    draws = keyed_generator(key, _MASS_STREAM)
    uniform = float(torch.rand((), generator=draws, dtype=torch.float64))
    return pick((logs - logs.max()).exp(), uniform)


@torch.no_grad()
def log_masses(
    drafts: Sequence[Draft],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    options: MaskGitGenerationConfig,
    allowed: AllowedTokens | None = None,
) -> Tensor:
    """Return the log-probability that the first pass writes a text of the patterns, (R,) float64.

    It is the first pass of `generate` itself, with all that decides what can be written.

    Args:
        drafts: R texts with masks.
        model: predicts.
        tokenizer: its padding.
        options: of decoding, resolved, for one text per row.
        allowed: ids that may be emitted, in all columns or by column.
    """
    columns, found = padded(drafts, tokenizer, model.device), []
    sampler = make_sampler(model.config, options, None, None, model.device)
    for start in range(0, len(drafts), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        types = columns.get("token_type_ids")
        given = Given(
            columns["input_ids"][part],
            columns["attention_mask"][part],
            None if types is None else types[part],
            seed=0,  # of which nothing is drawn
        )
        prompts = pack_prompts(model, given, options, (), lambda room: room.asked)
        asked = Asked(allowed, [draft.pattern for draft in drafts[part]], None, None, None)
        state, denoise = begin(model, options, sampler, asked, prompts, check=False)
        found.append(log_mass_of(state, denoise, sampler).cpu())
    return torch.cat(found)
