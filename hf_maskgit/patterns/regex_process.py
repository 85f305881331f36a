"""Compile a regular expression to an automaton of bytes, in a process that can be stopped.

A short expression may have an automaton of millions of states, `(a|b)*a(a|b){30}`, and the compiler
neither counts them nor can be interrupted. `compiling` runs this file by its path, so that it loads
neither the package nor torch, and gives it so many seconds and so much memory.

It reads JSON: `regex`, `first` and `last` (characters before and behind all texts; the last stands
in none, the first may be empty), `most` states, `memory` in bytes, and `paths` where packages are
found. It writes one line of JSON, with `error` (what the compiler
says against the expression), or `states`, `start` and `final`; with the latter the moves follow, a
row of 256 32-bit numbers for each state, where the number of states is nowhere.
"""

import contextlib
import json
import sys
from array import array
from typing import Any

NO_BYTE = 256  # the id of the end, which outlines-core wants


def main() -> None:
    """Compile what stands in the standard input."""
    asked = json.load(sys.stdin)
    sys.path += asked["paths"]
    with contextlib.suppress(ImportError, OSError, ValueError):  # where there are such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (asked["memory"], asked["memory"]))
    from outlines_core import Index, Vocabulary

    every = Vocabulary(NO_BYTE, {bytes([byte]): [byte] for byte in range(NO_BYTE)})
    # Of a text that could be over and goes on, outlines-core forgets how (a(ba)* is only a to it).
    # So no text is over but by a character that stands in none.
    first = "".join(map(escaped, asked["first"]))
    whole = f"{first}(?:{asked['regex']}){escaped(asked['last'])}"
    try:
        # Without brackets around it, which would make sense of "a)(b".
        Index(first + asked["regex"], every)
        index = Index(whole, every)
    except (ValueError, TypeError) as error:
        say({"error": str(error)})
        return
    write(index, asked["most"])


def escaped(character: str) -> str:
    """Return a character as expressions name it by its number."""
    return f"\\x{{{ord(character):X}}}"


def write(index: Any, most: int) -> None:
    """Write the automaton, its states numbered from 0; of one with too many the number alone."""
    moves = index.get_transitions()  # by states whose numbers have gaps
    behind = {state for reached in moves.values() for state in reached.values()}
    names = sorted({index.get_initial_state(), *moves, *behind})
    if len(names) > most:
        say({"states": len(names)})
        return
    number = {name: place for place, name in enumerate(names)}
    step = array("i", [len(names)]) * (len(names) * NO_BYTE)
    for name, reached in moves.items():
        for byte, target in reached.items():
            if byte != NO_BYTE:
                step[number[name] * NO_BYTE + byte] = number[target]
    final = [number[name] for name in index.get_final_states() if name in number]
    start = number[index.get_initial_state()]
    say({"states": len(names), "start": start, "final": final})
    sys.stdout.buffer.write(step.tobytes())


def say(found: dict[str, Any]) -> None:
    """Write one line."""
    sys.stdout.buffer.write(json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
