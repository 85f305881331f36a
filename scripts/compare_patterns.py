"""Compare the texts that a generator writes with and without patterns, of the same lengths.

    python -m scripts.compare_patterns --model runs/verses --text "In the {number} year he died." \
        --patterns '{"number": "first|second|third|(twen|thir)tieth"}'

Three rows: what is written without a pattern, what of it matches all the same, and what is written
with it. Columns: the share of texts that match and that can be read (`--reader`), the bound in nats
per filled token given what is typed, the share of different texts, and the seconds that one took. A
pattern is a regular expression, a list of texts, a JSON schema, or "@" and the file of a `Pattern`
that was saved.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from hf_maskgit import InfillingPipeline, Pattern, nelbo
from hf_maskgit.core.generation_output import OF_A_CALL
from hf_maskgit.core.pipeline_fields import compiled
from hf_maskgit.core.token_pattern import TokenPattern
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.evaluation.scaffolds import load_rdkit, read_molecule
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.recipes import (
    check_least,
    json_object,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import check_decided


@dataclass
class PatternArguments:
    """What is written, and how it is judged."""

    model: str = required("Generator: a folder or a name on the Hub.")
    text: str = required("Text with blanks that have names, such as `{name:2-5}`.")
    patterns: str = required("Patterns of the blanks by name, a JSON object.")
    reader: str | None = option(
        None,
        "Who reads the texts, too: `json` every blank with a name, `smiles` the whole text.",
    )
    decoding: str = option("{}", "Options of `generate`, a JSON object.")
    num_texts: int = option(200, "Texts to write with and without.")
    batch_size: int = option(50, "Texts written together.")
    num_samples: int = option(8, "Maskings that estimate a bound; even.")
    seed: int = option(0, "Seed of all texts.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_texts=1, batch_size=1, num_samples=2)


class Written(NamedTuple):
    """A text.

    Attributes:
        text: as the pipeline gives it.
        ids: its tokens, framing included.
        spans: first and last-plus-one token of each blank.
        fields: what stands in the blanks, by name.
        nats: of each filled token, in the mean.
    """

    text: str
    ids: list[int]
    spans: list[tuple[int, int]]
    fields: dict[str, str]
    nats: float


class Row(NamedTuple):
    """Figures of some texts; None where there is nothing to measure."""

    name: str
    texts: int
    match: float | None
    read: float | None
    nats: float | None
    error: float | None
    distinct: float | None
    seconds: float | None


# Whether a text with its fields can be read.
Reader = Callable[[str, Mapping[str, str]], bool]


def _json() -> Reader:
    def read(text: str, fields: Mapping[str, str]) -> bool:
        try:
            for value in fields.values():
                json.loads(value)
        except ValueError:
            return False
        return True

    return read


def _smiles() -> Reader:
    load_rdkit()  # before anything is written
    return lambda text, fields: read_molecule("".join(text.split())) is not None


READERS: dict[str, Callable[[], Reader]] = {"json": _json, "smiles": _smiles}


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Write, judge, print a table, and return the figures."""
    (options,) = parse_options(
        (PatternArguments,), argv, "Compare texts with and without patterns."
    )
    given = json_object("--patterns", options.patterns)
    decoding = json_object("--decoding", options.decoding)
    check_decided("--decoding", decoding, (*OF_A_CALL, "patterns", "seed"))
    reader = reader_of(options.reader)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(options.model, device_map=device)
    pipe = InfillingPipeline(model=model, tokenizer=tokenizer)
    patterns = compiled({name: loaded(one) for name, one in given.items()}, tokenizer)
    with ProgressBar("Writing", 2 * options.num_texts, "text") as told:

        def write(text: str, patterns: Mapping[str, TokenPattern], counts: int) -> list[Written]:
            found: list[Written] = []
            while len(found) < counts:
                size = min(options.batch_size, counts - len(found))
                found += written(pipe, text, patterns, size, options, decoding, len(found))
                told.update(size)
            return found

        start = time.perf_counter()
        bound = write(options.text, patterns, options.num_texts)
        middle = time.perf_counter()
        free = [
            one
            for text, count in Counter(sized(options.text, one) for one in bound).items()
            for one in write(text, {}, count)
        ]
        end = time.perf_counter()
    matches = lambda one: matching(one, pipe, options.text, patterns)  # noqa: E731
    kept = [one for one in free if matches(one)]
    rows = [
        row_of("without", free, matches, reader, end - middle),
        row_of("those of them that match", kept, matches, reader, end - middle),
        row_of("with", bound, matches, reader, middle - start),
    ]
    print("| | texts | match | can be read | nats per token | different | seconds per text |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(shown(row))
    return rows


def reader_of(name: str | None) -> Reader | None:
    """Return who reads texts, None for nobody.

    Raises:
        ValueError: for a name that is none.
        ImportError: for a reader that is not installed.
    """
    if name is None:
        return None
    if name not in READERS:
        raise ValueError(f"--reader must be one of {', '.join(READERS)}, got {name!r}.")
    return READERS[name]()


def loaded(pattern: Any) -> Any:
    """Return a pattern as the pipeline takes it, read from its file where "@" says so."""
    if isinstance(pattern, str) and pattern.startswith("@"):
        return Pattern.load(pattern[1:])
    return pattern


def sized(text: str, one: Written) -> str:
    """Give the blanks of a text the lengths that they have in one that was written."""
    lengths = iter(stop - start for start, stop in one.spans)
    named = "|".join(map(re.escape, [*one.fields, "blank"]))
    return re.sub(
        rf"\{{({named})(:[^{{}}]*)?\}}", lambda hole: f"{{{hole[1]}:{next(lengths)}}}", text
    )


def written(
    pipe: Any,
    text: str,
    patterns: Mapping[str, TokenPattern],
    count: int,
    options: PatternArguments,
    decoding: dict[str, Any],
    before: int,
) -> list[Written]:
    """Fill a text some times, and measure each."""
    seed = options.seed + before
    found: Any = pipe(
        text, patterns=dict(patterns), seed=seed, num_return_sequences=count, **decoding
    )
    results = found if isinstance(found, list) else [found]
    spans = [
        [(span["start"], span["start"] + len(span["token_ids"])) for span in one["spans"]]
        for one in results
    ]
    nats = filled_nats(pipe, [one["token_ids"] for one in results], spans, options)
    return [
        Written(
            one["text"],
            one["token_ids"],
            places,
            {name: field["value"] for name, field in one["fields"].items()},
            mean,
        )
        for one, places, mean in zip(results, spans, nats, strict=True)
    ]


def filled_nats(
    pipe: Any,
    texts: Sequence[list[int]],
    spans: Sequence[list[tuple[int, int]]],
    options: PatternArguments,
) -> list[float]:
    """Bound each text's filled tokens given the others, in nats per token."""
    width = max(map(len, texts))
    ids = torch.full((len(texts), width), pipe.tokenizer.pad_token_id or 0)
    real, judged = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
    for row, (text, places) in enumerate(zip(texts, spans, strict=True)):
        ids[row, : len(text)] = torch.tensor(text)
        real[row, : len(text)] = 1
        for start, stop in places:
            judged[row, start:stop] = True
    ids, real, judged = (each.to(pipe.device) for each in (ids, real, judged))
    found = nelbo(pipe.model, ids, real, judged, options.num_samples, seed=options.seed)
    means: list[float] = (found.nats / found.num_tokens).tolist()
    return means


def matching(one: Written, pipe: Any, text: str, patterns: Mapping[str, TokenPattern]) -> bool:
    """Tell whether the blanks of a text match their patterns."""
    names = list(one.fields)
    holes = re.findall(
        rf"\{{({'|'.join(map(re.escape, [*names, 'blank']))})(?::[^{{}}]*)?\}}", text
    )
    return all(
        patterns[name].matches(one.ids[start:stop])
        for name, (start, stop) in zip(holes, one.spans, strict=True)
        if name in patterns
    )


def row_of(
    name: str,
    texts: Sequence[Written],
    matches: Callable[[Written], bool],
    reader: Reader | None,
    seconds: float,
) -> Row:
    """Measure some texts, which took so many seconds together."""
    count = len(texts)
    if not count:
        return Row(name, 0, *[None] * 6)
    nats = torch.tensor([one.nats for one in texts]).double()
    return Row(
        name,
        count,
        sum(map(matches, texts)) / count,
        None if reader is None else sum(reader(one.text, one.fields) for one in texts) / count,
        float(nats.mean()),
        float(nats.std() / count**0.5) if count > 1 else None,
        len({one.text for one in texts}) / count,
        seconds / count,
    )


def shown(row: Row) -> str:
    """Write figures as a row of the table."""
    share = lambda value: "" if value is None else f"{value:.1%}"  # noqa: E731
    error = "" if row.error is None else f" ± {row.error:.2f}"
    nats = "" if row.nats is None else f"{row.nats:.2f}{error}"
    seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
    cells = [row.name, str(row.texts), share(row.match), share(row.read), nats]
    return f"| {' | '.join([*cells, share(row.distinct), seconds])} |"


if __name__ == "__main__":
    run_program(main)
