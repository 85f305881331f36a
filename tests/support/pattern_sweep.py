"""Whether what is written always matches its pattern, over many drawn cases, counted.

    python -m tests.support.pattern_sweep --count 100000

A case is a regular expression, one of six kinds of tokenizers, a legal sampler with its options,
and texts of masks and known tokens between them, or texts that are continued by as many tokens as
the expression takes. Every text that `generate` writes is decoded and matched by Python's `re`.
"""

import argparse
import random
import re
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st

from hf_maskgit import MaskGitConfig, Pattern
from hf_maskgit.core.special_tokens import tokenizer_fields
from hf_maskgit.core.token_pattern import TokenPattern
from tests.support.combinations import LEGAL, choices
from tests.support.pattern_texts import text_of
from tests.support.tiny import TableModel, bert_config, word_tokenizer
from tests.support.tiny_tokenizers import TOKENIZERS

KINDS = {**TOKENIZERS, "words": word_tokenizer}
# Texts of one kind of tokenizer each; what all can write is little.
ATOMS = {
    "wordpiece": [
        "[a-z]+",
        "the",
        "cat|mat",
        "[aeiou]",
        " ",
        "[^aeiou ]",
        "play(ers)?",
        r"\.",
        "-",
    ],
    "byte-level": ["[a-z]+", "[A-Z]", "[0-9]{1,2}", " ", "é|ü", r"\{", '"[a-z]*"', "[^a-z]", ":"],
    "unigram": ["[a-z]+", "the", " ", "[A-Z]", "[0-9]", "[aeiou]", "ball|wool", "-", "[^a-y]"],
    "protein": ["[A-Z]", "C", "[LIVM]{1,3}", "[^P]", "GS|SG", "[ST]", "[A-Y]*", "K+", "-"],
    "molecule": ["[A-Z]", "C|Cl", r"\(C+\)", "[=#]?", "c1c+1", "[0-9]", "[^(]", "N", "[a-z]*"],
    "words": ["w1", "w[0-9]", "(w2|w3)", "( w[0-9]+)*", " ", " w1[0-9]", "w.", " (w2)?", ".*"],
}
LONGEST = 9


@dataclass(frozen=True)
class Case:
    """One call of `generate`.

    Attributes:
        kind: of tokenizer.
        regex: what the texts must match.
        seed: of all that is drawn.
    """

    kind: str
    regex: str
    seed: int


@cache
def tokenizer_of(kind: str):
    return KINDS[kind]()


@cache
def model_of(kind: str) -> TableModel:
    tokenizer = tokenizer_of(kind)
    encoder = bert_config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    return TableModel(
        MaskGitConfig(text_config=encoder, **tokenizer_fields(tokenizer)), critic=True
    )


@cache
def pattern_of(kind: str, regex: str) -> TokenPattern | None:
    """The pattern, or None where the tokenizer can write no text of it."""
    try:
        return Pattern.from_regex(regex, tokenizer_of(kind))
    except ValueError as error:
        if "met by no text" in str(error):
            return None
        raise


def expression(kind: str, dice: random.Random) -> str:
    """Some atoms, one behind the other, some of them repeated."""
    parts = [dice.choice(ATOMS[kind]) for _ in range(dice.randint(1, 4))]
    return "".join(f"({part}){dice.choice(['', '', '?', '*', '{1,2}'])}" for part in parts)


def cases() -> st.SearchStrategy[Case]:
    """Cases for hypothesis."""
    return st.tuples(st.sampled_from(list(KINDS)), st.integers(0, 2**31)).map(
        lambda drawn: Case(drawn[0], expression(drawn[0], random.Random(drawn[1])), drawn[1])
    )


def walked(pattern: TokenPattern, dice: random.Random) -> list[int] | None:
    """A text of the pattern of at most `LONGEST` tokens, by a walk that never leads astray."""
    lengths = pattern.lengths(LONGEST).nonzero().squeeze(1).tolist()
    lengths = [length for length in lengths if length]
    if not lengths:
        return None
    step, final, class_of, state = pattern.automaton
    size = dice.choice(lengths)
    ends = [final]  # from where a text is over in so many tokens
    for _ in range(size):
        ends.append(torch.cat([ends[-1], torch.zeros(1).bool()])[step].any(1))
    row = []
    for left in reversed(range(size)):
        good = torch.cat([ends[left], torch.zeros(1).bool()])[step[state]][class_of]
        row.append(dice.choice(good.nonzero().squeeze(1).tolist()))
        state = int(step[state, class_of[row[-1]]])
    return row


def options_of(dice: random.Random) -> dict[str, Any]:
    """A legal sampler and its options."""
    combination = dice.choice(LEGAL)
    options: dict[str, Any] = {**choices(combination), "steps": dice.randint(1, 6)}
    if options["remask"] != "p2":
        del options["p2_planner"]
    drawn_anyway = options["order"] == "random" or options["pace"] == "ancestral"
    if dice.random() < 0.2 and not drawn_anyway:
        options |= {"do_sample": False, "choice_temperature": 0.0}
    if dice.random() < 0.3:
        options |= {"temperature": dice.choice([0.3, 2.0]), "anneal_temperature": False}
    if dice.random() < 0.3:
        options["top_k"] = dice.choice([1, 2, 5])
    if dice.random() < 0.2:
        options["top_p"] = 0.6
    if dice.random() < 0.2:
        options["repetition_penalty"] = 1.5
    if dice.random() < 0.3 and options["remask"] != "remdm_loop":
        options |= {"block_length": 3, "steps": 6}
    return options


def check(case: Case) -> int:
    """Write the texts of a case, and see that each matches; return how many there were."""
    dice = random.Random(case.seed)
    pattern, tokenizer, model = (f(case.kind) for f in (_of(case.regex), tokenizer_of, model_of))
    if pattern is not None and dice.random() < 0.2:
        return check_appended(case, pattern, dice)
    texts = [] if pattern is None else [walked(pattern, dice) for _ in range(3)]
    rows, spans, free = [], [], dice.random() < 0.3
    for text in texts:
        if text is None:
            continue
        hidden = [place for place in range(len(text)) if dice.random() < 0.6] or [0]
        first, last = (0, len(text) - 1) if free else (min(hidden), max(hidden))
        if not free and first:
            continue  # what stands before the first mask is no part of the span
        known = {place for place in range(last) if place not in hidden and place > first}
        if not free and last < len(text) - 1:
            continue
        masks = [text[p] if p in known else tokenizer.mask_token_id for p in range(len(text))]
        extra = [tokenizer.mask_token_id] * (dice.randint(1, 2) if free else 0)
        rows.append([tokenizer.cls_token_id, *masks, *extra])
        spans.append(len(masks) + len(extra))
        if not free:
            rows[-1].append(tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(5)))
    if not rows:
        return 0
    width = max(map(len, rows))
    left = dice.random() < 0.5
    pads = [[tokenizer.pad_token_id] * (width - len(row)) for row in rows]
    padded = [pad + row if left else row + pad for pad, row in zip(pads, rows, strict=True)]
    real = [[0] * len(p) + [1] * len(r) for p, r in zip(pads, rows, strict=True)]
    real = real if left else [row[::-1] for row in real]
    options = options_of(dice)
    written = model.generate(
        torch.tensor(padded), torch.tensor(real), pattern=pattern, seed=case.seed, **options
    )
    ends = {tokenizer.sep_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    for number, span in enumerate(spans):
        begin = (len(pads[number]) if left else 0) + 1
        body = written[number, begin : begin + span].tolist()
        if free:
            over = [place for place, token in enumerate(body) if token in ends]
            body = body[: over[0]] if over else body
        text = text_of(tokenizer, body)
        if not re.fullmatch(case.regex, text):
            raise AssertionError(f"{text!r} does not match: {case}, {options}")
    return len(rows)


def check_appended(case: Case, pattern: TokenPattern, dice: random.Random) -> int:
    """Do as `check` with texts that are continued by as many tokens as the pattern takes."""
    tokenizer, model = tokenizer_of(case.kind), model_of(case.kind)
    if not bool(pattern.lengths(LONGEST)[1:].any()):
        return 0
    special = set(tokenizer.all_special_ids)
    words = [i for i in range(len(tokenizer)) if i not in special]
    rows = [
        [tokenizer.cls_token_id, *dice.choices(words, k=dice.randint(0, 3))]
        for _ in range(dice.randint(1, 3))
    ]
    if dice.random() < 0.5:  # a closing token that stays where it was
        rows = [[*row, *(model.config.suffix_ids or [])] for row in rows]
    width, left = max(map(len, rows)), dice.random() < 0.5
    pads = [[tokenizer.pad_token_id] * (width - len(row)) for row in rows]
    padded = [pad + row if left else row + pad for pad, row in zip(pads, rows, strict=True)]
    ones = [[0] * len(pad) + [1] * len(row) for pad, row in zip(pads, rows, strict=True)]
    real = ones if left else [row[::-1] for row in ones]
    options = options_of(dice) | {"num_tokens": "pattern", "max_new_tokens": LONGEST}
    out = model.generate(
        torch.tensor(padded),
        torch.tensor(real),
        pattern=pattern,
        seed=case.seed,
        return_dict_in_generate=True,
        **options,
    )
    for number, row in enumerate(rows):
        begin = width if left else len(row)
        body = out.sequences[number, begin : begin + int(out.num_new_tokens[number])].tolist()
        text = text_of(tokenizer, body)
        if not re.fullmatch(case.regex, text):
            raise AssertionError(f"{text!r} does not match: {case}, {options}")
    return len(rows)


def _of(regex: str):
    return lambda kind: pattern_of(kind, regex)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="Texts to write.")
    parser.add_argument("--seed", type=int, default=0, help="Of the first case.")
    asked = parser.parse_args()
    dice, written, calls, told = random.Random(asked.seed), 0, 0, 1000
    while written < asked.count:
        kind = dice.choice(list(KINDS))
        regex = expression(kind, dice)
        for _ in range(20):  # a compiled pattern is worth several calls
            written += check(Case(kind, regex, dice.randrange(2**31)))
            calls += 1
        if written >= told:
            sys.stderr.write(f"{written:,} so far, all match\n")
            sys.stderr.flush()
            told += 1000
    sys.stdout.write(f"{written:,} of {written:,} texts match, of {calls:,} calls.\n")


if __name__ == "__main__":
    main()
