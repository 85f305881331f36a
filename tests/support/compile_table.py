"""How long it takes to compile patterns, for vocabularies of three sizes, as a table for the docs.

    python -m tests.support.compile_table

The vocabularies are of random pieces: how long theirs are matters, not what they mean. Seconds are
those of one processor.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_maskgit import Pattern

SPECIALS = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer"},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
}
PATTERNS = {
    "`[0-9]{4}-[0-9]{2}-[0-9]{2}`": (Pattern.from_regex, "[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    r"`\d{4}-\d{2}-\d{2}`": (Pattern.from_regex, r"\d{4}-\d{2}-\d{2}"),
    "eight words at most": (Pattern.from_regex, "[a-z]+( [a-z]+){0,7}"),
    "a JSON object of three properties": (Pattern.from_json_schema, json.dumps(SCHEMA)),
}


def pieces(size: int, start: list[str], begin: str) -> list[str]:
    """Different pieces: special ones, some that are given, and random ones, half of new words."""
    dice = random.Random(0)
    found = dict.fromkeys([*SPECIALS.values(), *start])
    while len(found) < size:
        word = "".join(dice.choice(LETTERS) for _ in range(dice.randint(2, 9)))
        found[dice.choice(["", begin]) + word] = None
    return list(found)


def wordpiece(size: int) -> Tokenizer:
    signs = [*LETTERS, *'0123456789{}":,.-_']
    names = pieces(size, [*signs, *(f"##{sign}" for sign in signs)], "##")
    backend = Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="<unk>"))
    backend.decoder = decoders.WordPiece()
    return backend


def byte_level(size: int) -> Tokenizer:
    names = pieces(size, pre_tokenizers.ByteLevel.alphabet(), "Ġ")
    backend = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    backend.decoder = decoders.ByteLevel()
    return backend


def unigram(size: int) -> Tokenizer:
    names = pieces(size, [*LETTERS, *'0123456789{}":,.-_'], "▁")
    backend = Tokenizer(models.Unigram([(name, -1.0) for name in names], unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend


SIZES: list[tuple[str, Callable[[int], Tokenizer], int]] = [
    ("WordPiece", wordpiece, 30_522),
    ("byte-level", byte_level, 50_257),
    ("sentencepiece", unigram, 250_002),
]


def seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    roles = {f"{role}_token": token for role, token in SPECIALS.items()}
    first = "more for the first pattern of a tokenizer"
    rows: dict[str, list[float]] = {name: [] for name in [*PATTERNS, first]}
    for _, make, size in SIZES:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=make(size), **roles)
        once, again = (
            seconds(lambda t=tokenizer: Pattern.from_choices(["a"], t)) for _ in range(2)
        )
        rows[first].append(once - again)
        for name, (compile_it, source) in PATTERNS.items():
            rows[name].append(seconds(lambda c=compile_it, s=source, t=tokenizer: c(s, t)))
    heads = " | ".join(f"{kind}, {size:,}" for kind, _, size in SIZES)
    sys.stdout.write(f"| seconds | {heads} |\n|---|{'---|' * len(SIZES)}\n")
    for name, found in rows.items():
        sys.stdout.write(f"| {name} | {' | '.join(f'{s:.1f}' for s in found)} |\n")


if __name__ == "__main__":
    main()
