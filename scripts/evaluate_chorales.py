"""Let a generator of chorales fill hidden voices and hidden bars, as MIDI and in figures.

    python -m scripts.evaluate_chorales --model runs/chorales/training \
        --dataset runs/chorales/grids --output_dir runs/chorales/evaluation

In the folder: `rolls.png`, held-out windows and what was filled in where the alto, or a bar in the
middle, had been hidden; `midi`, the same windows to be listened to, and others that were written
from nothing; `figures.json`. The first table is the bound on held-out windows beside counting; the
second says how many of the hidden pitches come back; the third what the windows are like as music,
beside real ones. Errors are over chorales.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import evaluate_nelbo
from hf_maskgit.evaluation.benchmark_report import figure_class_of_matplotlib
from hf_maskgit.evaluation.bound import check_num_samples
from hf_maskgit.evaluation.chorale_files import draw_rolls, write_midi
from hf_maskgit.evaluation.chorales import (
    REST,
    STEPS_PER_BAR,
    VOICES,
    music21_module,
    pitches_of,
    ranges_of,
)
from hf_maskgit.evaluation.corpus import CorpusEstimate, per_unit
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.voice_counting import (
    CountedVoices,
    count_voices,
    counted_nats,
    likeliest_by_chains,
    most_frequent,
)
from hf_maskgit.evaluation.voice_leading import harmony_figures
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.hub.training_card import written_out
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import OF_LENGTHS, check_samplers, samplers_of
from hf_maskgit.training.sources import check_columns, load_texts

SAMPLERS: list[dict[str, Any]] = [
    {"pace": "first_hitting", "anneal_temperature": False},
    {"steps": 16},
    {"steps": 8},
    {"steps": 1, "do_sample": False},
]
SHOWN = ("alto", "bar")  # parts that are drawn and written as MIDI
_TOGETHER = 64  # windows per pass

# Windows (W, T, 4) and what of them is hidden (T, 4) -> the windows, filled.
Fill = Callable[[Tensor, Tensor], Tensor]


class HeldOut(NamedTuple):
    """Held-out windows: (W, T, 4) long, and (W,) long, the number of the chorale of each."""

    grids: Tensor
    chorale: Tensor


@dataclass
class ChoraleArguments:
    """Who fills, and what is measured."""

    model: str = required("Generator of chorales: a folder or a name on the Hub.")
    dataset: str = required("Windows, as scripts/prepare_chorales.py writes them.")
    output_dir: str = required("Folder for MIDI files, picture and figures.")
    samplers: str | None = option(
        None,
        "Options of `generate` for each sampler, a JSON list of objects; the first draws the "
        "picture. Default: one reveal per pass, sixteen and eight passes, and one with the "
        "likeliest ids.",
    )
    num_samples: int = option(32, "Maskings of each window for the bound, an even number.")
    num_files: int = option(3, "Windows to draw and to write as MIDI.")
    seed: int = option(0, "Seed of all that is drawn.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_files=1)
        check_num_samples(self.num_samples)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, and return the figures."""
    (options,) = parse_options((ChoraleArguments,), argv, "Fill chorales and judge them.")
    samplers = samplers_of(options.samplers, SAMPLERS, {"steps": 16}, decided=OF_LENGTHS)
    music21_module("stream")  # said before anything is computed
    figure_class_of_matplotlib()  # which draws in the end
    train, held_out = read_windows(options.dataset, "train"), read_windows(options.dataset)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(options.model, device_map=device)
    check_samplers(model, samplers)
    folder = Path(options.output_dir)
    (folder / "midi").mkdir(parents=True, exist_ok=True)
    counted = count_voices(train.grids)
    ranges = ranges_of(train.grids)
    figures: dict[str, Any] = {"bound": bounds(model, tokenizer, counted, held_out, options)}
    fills = {
        "most frequent": lambda grids, hidden: most_frequent(counted, grids, hidden),
        "counted chains": lambda grids, hidden: likeliest_by_chains(counted, grids, hidden),
        **{written_out(s): filler(model, s, options.seed) for s in samplers},
    }
    done = {name: fill_parts(fill, held_out.grids) for name, fill in fills.items()}
    hidden = hidden_parts(held_out.grids.shape[1])
    figures["recovered"] = {n: recovered(parts, held_out, hidden) for n, parts in done.items()}
    print_recovered(figures["recovered"])
    figures["harmony"] = {"held-out, real": {"": harmony_figures(held_out.grids, ranges)}}
    for name, parts in done.items():
        figures["harmony"][name] = {p: harmony_figures(g, ranges) for p, g in parts.items()}
    print_harmony(figures["harmony"])
    show(held_out, done[written_out(samplers[0])], hidden, folder, options.num_files)
    (folder / "figures.json").write_text(figures_text(figures), encoding="utf-8")
    return figures


def read_windows(dataset: str, split: str = "validation") -> HeldOut:
    """Read the windows of a split.

    Raises:
        ValueError: for rows that are no windows of chorales.
    """
    rows = load_texts(dataset, None, split)
    what = "windows, as scripts/prepare_chorales.py writes them"
    check_columns(rows, dataset, ("grid", "chorale"), what)
    grids = torch.tensor(rows["grid"][:]).unflatten(1, (-1, len(VOICES)))
    names = rows["chorale"][:]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return HeldOut(grids, torch.tensor([numbers[name] for name in names]))


def hidden_parts(steps: int) -> dict[str, Tensor]:
    """Say what is hidden by the name of each part, (T, 4) bool: a voice, the middle, or all.

    The middle is a bar of four quarters, or half of what is shorter than two bars.
    """
    parts = {}
    for number, voice in enumerate(VOICES):
        parts[voice.lower()] = torch.zeros(steps, len(VOICES), dtype=torch.bool)
        parts[voice.lower()][:, number] = True
    middle = min(STEPS_PER_BAR, steps // 2)
    first = (steps - middle) // 2
    parts["bar"] = torch.zeros(steps, len(VOICES), dtype=torch.bool)
    parts["bar"][first : first + middle] = True
    parts["all"] = torch.ones(steps, len(VOICES), dtype=torch.bool)
    return parts


def bounds(
    model: MaskGitForMaskedLM,
    tokenizer: Any,
    counted: CountedVoices,
    held_out: HeldOut,
    options: ChoraleArguments,
) -> dict[str, Any]:
    """Measure the bound beside counting, in nats per id; print the table."""
    grids = held_out.grids
    rows = [{"input_ids": row} for row in grids.flatten(1).tolist()]
    bound = evaluate_nelbo(
        model,
        rows,
        tokenizer,
        num_samples=options.num_samples,
        batch_size=_TOGETHER,
        seed=options.seed,
    )
    ways = {"this model": bound.nats, **counted_nats(counted, grids)}
    found = {name: by_chorale(nats, bound.num_tokens, held_out) for name, nats in ways.items()}
    print("| held-out chorales | nats per id |")
    print("|---|---|")
    for name, one in found.items():
        sign = "≤ " if name == "this model" else ""
        print(f"| {name} | {sign}{one.value:.3f} ± {one.std_error:.3f} |")
    print()
    return {name: one.figures() for name, one in found.items()}


def by_chorale(values: Tensor, units: Tensor, held_out: HeldOut) -> CorpusEstimate:
    """Divide sums over windows (W,) by sums of their units, with the error over chorales."""
    size = int(held_out.chorale.max()) + 1
    sums = [
        torch.zeros(size, dtype=torch.double).index_add(0, held_out.chorale, one.double())
        for one in (values, units)
    ]
    return per_unit(sums[0], torch.zeros_like(sums[0]), sums[1])


def filler(model: MaskGitForMaskedLM, sampler: dict[str, Any], seed: int) -> Fill:
    """Return what fills windows by a generator."""
    mask = cast(int, model.config.mask_token_id)

    def fill(grids: Tensor, hidden: Tensor) -> Tensor:
        rows = grids.masked_fill(hidden, mask).flatten(1)
        filled = []
        for number, part in enumerate(rows.split(_TOGETHER)):
            done: Any = model.generate(
                part.to(model.device),
                seed=seed + number,
                num_return_sequences=1,
                return_dict_in_generate=False,
                **sampler,
            )
            filled.append(done.cpu())
        return torch.cat(filled).view_as(grids)

    return fill


def fill_parts(fill: Fill, grids: Tensor) -> dict[str, Tensor]:
    """Hide each part of windows, and fill it."""
    return {name: fill(grids, hidden) for name, hidden in hidden_parts(grids.shape[1]).items()}


def recovered(
    parts: dict[str, Tensor], held_out: HeldOut, hidden: dict[str, Tensor]
) -> dict[str, Any]:
    """Say which share of the hidden pitches came back."""
    found = {}
    for name, filled in parts.items():
        if hidden[name].all():
            continue  # nothing is given: there is nothing to come back
        counts = (held_out.grids != REST) & hidden[name]
        right = (pitches_of(filled) == pitches_of(held_out.grids)) & counts
        found[name] = by_chorale(right.sum((1, 2)), counts.sum((1, 2)), held_out).figures()
    return found


def print_recovered(found: dict[str, Any]) -> None:
    """Print the share of pitches that came back as a table."""
    parts = list(next(iter(found.values())))
    print(f"| pitches that come back of | {' | '.join(parts)} |")
    print("|---" * (1 + len(parts)) + "|")
    for name, row in found.items():
        cells = (f"{row[part]['value']:.3f} ± {row[part]['std_error']:.3f}" for part in parts)
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def print_harmony(found: dict[str, Any]) -> None:
    """Print what windows are like as music."""
    print("| filled by | hidden | in range | fifths | octaves | dissonant | notes per bar |")
    print("|---|---|---|---|---|---|---|")
    for name, parts in found.items():
        for part, row in parts.items():
            print(
                f"| {name} | {part} | {row['in_range']:.3f} | {row['fifths']:.2f} "
                f"| {row['octaves']:.2f} | {row['dissonant']:.3f} | {row['notes']:.1f} |"
            )


def show(
    held_out: HeldOut,
    filled: dict[str, Tensor],
    hidden: dict[str, Tensor],
    folder: Path,
    number: int,
) -> None:
    """Draw and write windows of different chorales, real and filled."""
    changes = torch.ones_like(held_out.chorale, dtype=torch.bool)
    changes[1:] = held_out.chorale.diff() != 0
    chosen = changes.nonzero()[:number, 0]
    real = held_out.grids[chosen]
    nothing = torch.zeros_like(hidden[SHOWN[0]])
    lines = {"real": (real, nothing)}
    lines |= {f"{part} filled in": (filled[part][chosen], hidden[part]) for part in SHOWN}
    titles = tuple(f"held-out window {place}" for place in chosen.tolist())
    draw_rolls(lines, titles, folder / "rolls.png")
    for place, window in zip(chosen.tolist(), real, strict=True):
        write_midi(window, folder / "midi" / f"{place}_real.mid")
        for part in (*SHOWN, "all"):
            write_midi(filled[part][place], folder / "midi" / f"{place}_{part}.mid")


if __name__ == "__main__":
    run_program(main)
