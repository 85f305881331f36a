"""Packages that only some users need: one that is missing is told in a sentence.

Each comes with an extra of hf_maskgit, and is imported where it is used, within `needs`.
"""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needs(what: str, extra: str, otherwise: str = "") -> Iterator[None]:
    """Say which package is missing, and what brings it, where an import within fails.

    Args:
        what: the beginning of the sentence, which names the package in the end; `{package}` in it
            becomes the name of the module that was not found.
        extra: of hf_maskgit.
        otherwise: the end of the sentence, such as what to do without the package.

    Raises:
        ImportError: with that sentence.
    """
    try:
        yield
    except ImportError as error:
        # A sentence of a caller may hold braces of its own.
        named = what.replace("{package}", repr(error.name))
        raise ImportError(
            f"{named}, which is not installed: pip install 'hf_maskgit[{extra}]'{otherwise}.",
            name=error.name,
        ) from error
