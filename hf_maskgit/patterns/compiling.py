"""From a language of characters to one of tokens: bytes are walked through an automaton of bytes.

Letters: S states of the automaton of bytes, V vocabulary.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.extras import needs
from ..core.options import shown
from ..core.pattern_automaton import Automaton, minimal, smallest, tokens_by_class
from .schema import readable_schema
from .token_texts import TokenTexts

# States of bytes times tokens: more are walked for longer than a minute.
_MOST_WALKS = 2**29
_BLOCK = 2**22  # walks side by side
_MOST_STATES = 2**14  # of bytes: several make one of tokens
# To compile: an automaton of so many states takes a second and a tenth of it.
_MOST_SECONDS = 30
_SECONDS: ContextVar[float | None] = ContextVar("seconds", default=None)  # where they are fewer
_MOST_GIB = 4
_LAST = "\U0010ffff"  # no character, and the last of Unicode
# outlines-core has an expression begin anywhere in a text, and then forgets that: a hundred times
# the work, unless all begin with what stands nowhere else. In JSON that is a control character.
_NOT_IN_JSON = "\x01"
_BY = "compiles regular expressions with the package outlines-core"
_EXTRA = (
    "patterns",
    ". Pattern.from_choices, from_prosite and from_token_classes do without it",
)


class ByteAutomaton(NamedTuple):
    """A language of bytes.

    Attributes:
        step: (S, 256) long, the state after a byte; S is nowhere.
        final: (S,) bool.
        start: the state before the first byte.
    """

    step: Tensor
    final: Tensor
    start: int


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give each regular expression that is compiled in here so many seconds."""
    before = _SECONDS.set(seconds)
    try:
        yield
    finally:
        _SECONDS.reset(before)


def bytes_of_regex(regex: str, is_json: bool = False) -> ByteAutomaton:
    """Compile a regular expression, matched by whole texts.

    Args:
        regex: in the syntax of Rust's regex crate.
        is_json: whether all its texts are JSON, which is compiled faster.

    Raises:
        ImportError: when outlines-core is not installed.
        ValueError: for an expression that it does not know, or one too large.
    """
    with needs(f"Pattern.from_regex {_BY}", *_EXTRA):
        import outlines_core
    first = _NOT_IN_JSON if is_json else ""
    asked = {
        "regex": regex,
        "first": first,
        "last": _LAST,
        "most": _MOST_STATES,
        "memory": int(_MOST_GIB * 2**30),
        "paths": [str(Path(outlines_core.__file__).parent.parent)],
    }
    # A file of the working folder does not stand for a module of Python's: -P.
    command = [sys.executable, "-P", str(Path(__file__).with_name("regex_process.py"))]
    said, seconds = json.dumps(asked).encode(), _SECONDS.get() or _MOST_SECONDS
    try:
        ended = subprocess.run(command, input=said, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise ValueError(_too_large(regex, f"{seconds:g} seconds")) from error
    line, _, moves = ended.stdout.partition(b"\n")
    if ended.returncode < 0 or b"MemoryError" in ended.stderr:
        raise ValueError(_too_large(regex, f"{_MOST_GIB} GiB of memory"))
    if ended.returncode:
        raise RuntimeError(
            f"The process that compiles regular expressions ended with {ended.returncode}: "
            f"{ended.stderr.decode(errors='replace').strip()}"
        )
    found = json.loads(line)
    if "Found no transitions" in found.get("error", ""):
        raise ValueError(
            f"The regular expression {shown(regex)} is met by no text, or a part of it is: it asks "
            "for one of a set of characters that has none, as [a&&b] and [^\\s\\S]. Leave that out."
        )
    if "error" in found:
        raise ValueError(
            f"The regular expression {shown(regex)} cannot be compiled: {found['error']}. It "
            "is matched by whole texts, so that anchors (^, $) are left out; looking around, word "
            "boundaries and references to groups are not regular."
        )
    _check_states(found["states"])
    step = torch.frombuffer(bytearray(moves), dtype=torch.int32).view(-1, 256).long()
    step = torch.cat([step, torch.full((1, 256), len(step))])
    state = torch.arange(len(step) - 1)
    for byte in _LAST.encode():
        state = step[state, byte]
    over = torch.zeros(len(step), dtype=torch.bool)
    over[found["final"]] = True
    start = found["start"]
    for byte in first.encode():
        start = int(step[start, byte])
    return _small(ByteAutomaton(step[:-1], over[state], start))


def _small(language: ByteAutomaton) -> ByteAutomaton:
    """Return the automaton with the fewest states, since every token is walked from each."""
    step, final, class_of, start = minimal(
        Automaton(*language[:2], torch.arange(256), language.start)
    )
    return ByteAutomaton(step[:, class_of], final, start)


def _too_large(regex: str, limit: str) -> str:
    return (
        f"The regular expression {shown(regex)} was not compiled within {limit}, and its "
        f"automaton is beyond the limit of {_MOST_STATES:,} states of bytes. Bound what repeats, "
        "or ask less."
    )


def regex_of_schema(schema: str) -> str:
    """Turn a JSON schema, as JSON text, into a regular expression.

    Raises:
        ImportError: when outlines-core is not installed.
        ValueError: for a schema that it does not know, or of which it would ignore a part.
    """
    try:
        schema, numbers = readable_schema(schema)
    except RecursionError as error:
        raise ValueError("The JSON schema is nested too deep to be compiled.") from error
    with needs(f"Pattern.from_json_schema {_BY}", *_EXTRA):
        from outlines_core.json_schema import build_regex_from_schema
    try:
        regex = str(build_regex_from_schema(schema))
    except (ValueError, TypeError) as error:
        said = str(error).splitlines()[0].strip().removesuffix(".")  # the rest is not for users
        raise ValueError(f"The JSON schema cannot be compiled: {said}.") from error
    for name, number in numbers.items():
        regex = regex.replace(f'"{name}"', number)
    return regex


def bytes_of_choices(texts: Sequence[str]) -> ByteAutomaton:
    """Make the automaton of some texts: a tree of their bytes."""
    rows: list[dict[int, int]] = [{}]
    ends = set()
    for text in texts:
        state = 0
        for byte in text.encode():
            if byte not in rows[state]:
                rows[state][byte] = len(rows)
                rows.append({})
            state = rows[state][byte]
        ends.add(state)
        _check_states(len(rows))
    step = torch.full((len(rows), 256), len(rows))
    for state, row in enumerate(rows):
        for byte, target in row.items():
            step[state, byte] = target
    return ByteAutomaton(step, torch.tensor([s in ends for s in range(len(rows))]), 0)


def over_tokens(language: ByteAutomaton, texts: TokenTexts) -> Automaton:
    """Make the automaton of all rows of tokens whose text belongs to a language.

    The one space with which a text may begin is no part of it: whether a space stands before a span
    is the model's choice.

    Raises:
        ValueError: for a language that the tokens cannot write, or one too large.
    """
    if texts.spaced:
        language = _behind_a_space(language)
    states, size = len(language.final), len(texts.rest)
    if (states + 1) * size > _MOST_WALKS:
        raise ValueError(
            f"The pattern makes an automaton of {states:,} states of bytes, and the vocabulary has "
            f"{size:,} tokens; {_MOST_WALKS // size:,} states are the limit for it. Bound what "
            "repeats, or ask less."
        )
    # State 0 is before the first token, whose text may differ; the others are those of bytes.
    begun = _walked(language, texts.first, torch.tensor([language.start]))
    going = _walked(language, texts.rest, torch.arange(states))
    step = torch.cat([begun, going]) + 1
    final = torch.cat([language.final[language.start].reshape(1), language.final])
    number = tokens_by_class(step, states + 2)
    some = torch.empty(int(number.max()) + 1, dtype=torch.long)
    some.scatter_(0, number, torch.arange(size))
    return smallest(Automaton(step[:, some].long(), final, number, 0))


def _behind_a_space(language: ByteAutomaton) -> ByteAutomaton:
    """Put one space before every text, which it may lack if it begins with none itself."""
    states = len(language.final)
    step = language.step.masked_fill(language.step == states, states + 1)
    begin = step[language.start].clone()
    begin[ord(" ")] = language.start
    final = torch.cat([language.final, language.final[language.start].reshape(1)])
    return ByteAutomaton(torch.cat([step, begin[None]]), final, states)


def _walked(language: ByteAutomaton, texts: Sequence[bytes | None], starts: Tensor) -> Tensor:
    """Walk every token from some states, (K,) -> (K, V) int32: where it leads; S is nowhere."""
    nowhere, size = len(language.final), len(texts)
    table = torch.cat([language.step, torch.full((1, 256), nowhere)]).flatten()
    by_length = sorted(range(size), key=lambda i: -len(texts[i] or b""))
    lengths = [len(texts[i] or b"") for i in by_length]
    width = max(lengths, default=0)
    padded = b"".join((texts[i] or b"").ljust(width, b"\0") for i in by_length)
    columns = torch.frombuffer(bytearray(padded or b"\0"), dtype=torch.uint8)
    columns = columns[: size * width].view(size, width)
    places = torch.tensor(by_length)
    absent = torch.tensor([text is None for text in texts])
    found = torch.empty(len(starts), size, dtype=torch.int32)
    at_once = max(1, _BLOCK // max(1, size))
    for block in range(0, len(starts), at_once):
        states = starts[block : block + at_once, None].repeat(1, size)  # (k, V), longest first
        going = size
        for place in range(width):
            while lengths[going - 1] <= place:
                going -= 1
            byte = columns[:going, place].long()
            states[:, :going] = table[states[:, :going] * 256 + byte]
        found[block : block + at_once, places] = states.int()
    return found.masked_fill(absent, nowhere)


def _check_states(states: int) -> None:
    if states > _MOST_STATES:
        raise ValueError(
            f"The pattern makes an automaton of {states:,} states of bytes or more; "
            f"{_MOST_STATES:,} are the limit. Bound what repeats, or ask less."
        )
