"""What each token of a tokenizer adds to a text, as bytes: at the start of it, and further on.

Told by what `tokenizer.decode` gives, so that any kind of tokenizer is understood whose text grows
token by token: WordPiece, byte-level, sentencepiece, characters, residues.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from ..core.special_tokens import special_ids, tokenizer_fields
from ..core.tokenizer_memory import decoder_of, per_tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SAMPLES, _SAMPLE_LENGTH = 64, 6


class TokenTexts(NamedTuple):
    """The bytes of every token.

    Attributes:
        first: by id, at the start of a text; None where the token cannot stand there.
        rest: by id, behind another token; None for special tokens and ids without one.
        spaced: whether the spaces that decoding puts between any two tokens belong to the text.
    """

    first: list[bytes | None]
    rest: list[bytes | None]
    spaced: bool


@per_tokenizer
def token_texts(tokenizer: PreTrainedTokenizerBase) -> TokenTexts:
    """Find out what each token adds to a text.

    The text is `tokenizer.decode(ids, clean_up_tokenization_spaces=False)`. A piece that continues
    a word cannot begin it. Where decoding puts a space between any two tokens, which residues and
    atoms do not have, these spaces are no part of it.

    Raises:
        ValueError: for a tokenizer whose text does not grow token by token.
    """
    decoders = _decoder_types(tokenizer)
    special = special_ids(tokenizer_fields(tokenizer))
    ids = [i for i in sorted(set(tokenizer.get_vocab().values())) if i not in special]
    size = max(len(tokenizer), max(ids, default=-1) + 1)
    first: list[bytes | None] = [None] * size
    rest: list[bytes | None] = [None] * size
    tokens = tokenizer.convert_ids_to_tokens(ids)
    if "ByteLevel" in decoders:
        known = {char: byte for byte, char in _byte_alphabet().items()}
        for i, token in zip(ids, tokens, strict=True):
            spelt = all(char in known for char in token)
            first[i] = rest[i] = bytes(known[c] for c in token) if spelt else token.encode()
    else:
        _ask(tokenizer, ids, first, rest)
        if "ByteFallback" in decoders:
            for i, token in zip(ids, tokens, strict=True):
                if named := _BYTE_TOKEN.fullmatch(token):
                    first[i] = rest[i] = bytes([int(named[1], 16)])
    _check(tokenizer, ids, first, rest)
    spaced = not _runs_on(tokenizer, ids, first, rest)
    if not spaced:
        # As residues: what stands first is the same further on.
        rest = [None if text is None else text.removeprefix(b" ") for text in rest]
    return TokenTexts(first, rest, spaced)


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of some ids as it is, with no cleaning up of spaces behind it."""
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _ask(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    first: list[bytes | None],
    rest: list[bytes | None],
) -> None:
    """Decode every token alone and behind another one."""
    alone = {i: decoded(tokenizer, [i]) for i in ids}
    # A word of letters is the same before whatever follows.
    anchor = next((i for i in ids if alone[i].isalnum() and alone[i].isascii()), None)
    if anchor is None:
        raise ValueError(
            "No token of this tokenizer stands for a letter or a digit alone, so that what its "
            "tokens add to a text cannot be told; use Pattern.from_token_classes."
        )
    for i in ids:
        both = decoded(tokenizer, [anchor, i])
        if not both.startswith(alone[anchor]):
            raise _not_token_by_token()
        behind = both[len(alone[anchor]) :]
        # "##ing" adds "ing" to a word, and stands as "##ing" where there is none.
        continues = not behind.startswith(" ") and alone[i] not in (behind, f" {behind}")
        first[i] = None if continues and alone[i].endswith(behind) else alone[i].encode()
        rest[i] = behind.encode()


def _check(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    first: Sequence[bytes | None],
    rest: Sequence[bytes | None],
) -> None:
    """See that texts of several tokens are what their tokens add, in a fixed sample."""
    starts = [i for i in ids if first[i] is not None]
    generator = torch.Generator().manual_seed(0)
    for _ in range(_SAMPLES if starts else 0):
        picks = torch.rand(_SAMPLE_LENGTH, generator=generator).tolist()
        head = starts[int(picks[0] * len(starts))]
        row = [head, *(ids[int(p * len(ids))] for p in picks[1:])]
        whole = b"".join([first[head] or b"", *(rest[i] or b"" for i in row[1:])])
        try:
            expected = whole.decode()
        except UnicodeDecodeError:  # bytes that make no character are shown in several ways
            continue
        if decoded(tokenizer, row) != expected:
            raise _not_token_by_token()


def _not_token_by_token() -> ValueError:
    return ValueError(
        "The text of this tokenizer does not grow token by token: what one adds depends on others. "
        "Patterns of text cannot be compiled for it; use Pattern.from_token_classes."
    )


def _runs_on(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    first: Sequence[bytes | None],
    rest: Sequence[bytes | None],
) -> bool:
    """Tell whether texts are written without the spaces between tokens: residues and atoms are."""
    words = [i for i in ids if first[i]]
    if not all(rest[i] == b" " + (first[i] or b"") for i in words):
        return False
    texts = {i: (first[i] or b"").decode() for i in words}
    if all(len(text) == 1 for text in texts.values()):
        return True
    # "CCl" is read as C and Cl again, "w1w2" not as two words.
    generator = torch.Generator().manual_seed(0)
    kept = 0
    for _ in range(_SAMPLES):
        pair = [words[int(p * len(words))] for p in torch.rand(2, generator=generator).tolist()]
        read = tokenizer("".join(texts[i] for i in pair), add_special_tokens=False)["input_ids"]
        kept += read == pair
    return kept > _SAMPLES // 2


def _decoder_types(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    found: set[str] = set()

    def collect(part: Any) -> None:
        found.add(part["type"])
        for inner in part.get("decoders", []):
            collect(inner)

    decoder = decoder_of(tokenizer)
    if decoder:
        collect(json.loads(decoder))
    return found


def _byte_alphabet() -> dict[int, str]:
    """Return which character stands for each byte in byte-level vocabularies (GPT-2's)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    places = [*shown, *(256 + number for number in range(len(hidden)))]
    return {b: chr(place) for b, place in zip([*shown, *hidden], places, strict=True)}
