"""Faults of core that no test can notice, each with the reason: what runs is the same without them.

A row names the module, the piece as it is, the piece with the fault, and why the two do the same.
Blanks and line ends do not count. Where core changes, a row goes with the piece it speaks of.
"""

EXPLAINED: list[tuple[str, str, str, str]] = []


def reason_of(module: str, before: str, after: str) -> str | None:
    """Return why a fault changes nothing; None where nobody has said so."""
    asked = (module, _joined(before), _joined(after))
    for name, piece, fault, reason in EXPLAINED:
        if (name, _joined(piece), _joined(fault)) == asked:
            return reason
    return None


def _joined(text: str) -> str:
    return "".join(text.split())
