"""Train a recipe in several ways, each changed in one thing, and compare their bounds in pairs.

    python scripts/compare_trainings.py --recipe scripts/recipes/verses_from_scratch.yaml \
        --max_steps 1000 --seeds 0 1 2 --output_dir runs/ways
    python scripts/compare_trainings.py --recipe scripts/recipes/molecules.yaml \
        --ways '{"EMA": {"ema_decay": 0.999}, "cosine": {"schedule": "cosine"}}' --max_steps 2000 \
        --output_dir runs/ways_of_molecules

The recipe as it is stands first, and every other way is the recipe with a few options of
`scripts/train.py` changed. All see the same held-out texts under the same masks, purely masked
whatever they were trained with, so that a difference of two bounds is far better known than either.
With several seeds each seed is a training of its own, its data in another order, and the error is
that over seeds, which is what a difference must be held against; with one seed it is that over
texts alone, and says nothing about another training. Interrupted, the same command goes on: what is
trained is kept, and what was being trained is resumed.
"""

import io
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from hf_maskgit.scripts import evaluate

from hf_maskgit.core.special_tokens import tokenizer_fields
from hf_maskgit.evaluation import NelboOutput, compare_bounds
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.evaluation.written_folders import claim_folder
from hf_maskgit.training.arguments import (
    DataArguments,
    ModelArguments,
    TrainArguments,
    check_seed,
)
from hf_maskgit.training.building import load_tokenizer
from hf_maskgit.training.data import check_together
from hf_maskgit.training.recipes import (
    RECIPE_NAME,
    check_least,
    json_object,
    load_recipe,
    option,
    parse_options,
    recipe_words,
    required,
    run_program,
)
from hf_maskgit.training.run_log import METRICS_NAME

TRAINING = (ModelArguments, DataArguments, TrainArguments)
AS_IT_IS = "the recipe"
OF_TOKENIZERS = ("encoder", "tokenizer", "revision")  # options that say which one reads the texts
WAYS: Mapping[str, Mapping[str, Any]] = {
    "plain cross-entropy": {"use_simple_mdlm_loss_weight": False},
    "half of the texts corrupted": {"corruption_prob": 0.5},
    "all texts corrupted": {"corruption_prob": 1.0},
    "cosine": {"schedule": "cosine"},
    "Bernoulli masks": {"choice": "bernoulli"},
    "times by importance": {"time_sampler": "importance"},
    "averages": {"ema_decay": 0.99},
    "self-conditioning": {"self_cond": True},
    "self token critic": {"token_critic": "self"},
}


@dataclass
class TrainingsArguments:
    """What is trained, how often, and what it is measured on."""

    recipe: str = required("Recipe of `scripts/train.py`, with an `eval_split`.")
    output_dir: str = required("Folder of all trainings and of `comparison.json`.")
    ways: str | None = option(
        None,
        "What is changed, a JSON object of names with options of `scripts/train.py`. Default: "
        + "; ".join(WAYS)
        + ".",
    )
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Seeds of weights, data and masks."}
    )
    max_steps: int | None = option(None, "Updates of each training. Default: the recipe's.")
    num_examples: int = option(512, "Held-out texts to measure on, spread evenly.")
    num_samples: int = option(8, "Maskings of each, an even number.")
    batch_size: int = option(32, "Texts per forward pass of the measurement.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_examples=2, batch_size=1, num_samples=4, max_steps=1)
        for seed in self.seeds:
            check_seed(seed, "seeds")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` names one twice: {self.seeds}; name each once.")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, measure, print the table, and return the figures."""
    (options,) = parse_options((TrainingsArguments,), argv, "Compare ways of training.")
    ways = ways_of(options)
    asked = {name: words_of(options, name, changes) for name, changes in ways.items()}
    check_read_alike(options, ways)
    folder = Path(options.output_dir)
    free = ("output_dir", "ways", "seeds")  # more of these may be asked for later
    runs = {
        place_of(folder, name, seed): [*asked[name], f"--seed={seed}"]
        for seed in options.seeds
        for name in ways
    }
    check_kept(runs, len(options.seeds) * len(ways))
    claim_folder(folder, {n: value for n, value in asdict(options).items() if n not in free})
    with ProgressBar("Training", len(runs), "training") as told:
        for place, words in runs.items():
            train(words, place)
            told.update(1)
    found = compared(options, asked, folder)
    (folder / "comparison.json").write_text(figures_text(found) + "\n", encoding="utf-8")
    print("\n".join(table_of(found, len(options.seeds))))
    return found


def ways_of(options: TrainingsArguments) -> dict[str, Mapping[str, Any]]:
    """Return the recipe as it is, and every change that changes something.

    Raises:
        ValueError: for ways that are no objects, or that all are the recipe.
    """
    given = WAYS if options.ways is None else json_object("--ways", options.ways)
    for name, changes in given.items():
        if not isinstance(changes, Mapping) or not changes:
            raise ValueError(
                f"The way {name!r} must be a JSON object of options such as "
                f'{{"schedule": "cosine"}}, got {changes!r}.'
            )
    base = parsed(options, AS_IT_IS, {})
    ways = {n: c for n, c in given.items() if parsed(options, n, c) != base}
    if not ways:
        raise ValueError("The recipe has all that `ways` changes already; name other changes.")
    for name in given.keys() - ways.keys():
        print(f"{name!r} is left out: the recipe is trained so already.", file=sys.stderr)
    return {AS_IT_IS: {}, **ways}


def words_of(options: TrainingsArguments, name: str, changes: Mapping[str, Any]) -> list[str]:
    """Spell a way as the command line of `scripts/train.py`, checked as far as can be now.

    Raises:
        ValueError: for what `scripts/train.py` would refuse.
    """
    _, data, _ = parsed(options, name, changes)
    if data.streaming or data.validation_fraction is not None or data.eval_split is None:
        raise ValueError(
            f"{options.recipe} names no `eval_split`: all ways are measured on the same held-out "
            "texts, which `validation_fraction` and streams draw for each training anew."
        )
    if len(data.dataset) > 1 and data.eval_dataset is None:
        raise ValueError(
            f"{options.recipe} mixes {len(data.dataset)} data sets, and all ways are measured on "
            "the texts of one: name it with `eval_dataset`."
        )
    if data.end_fill != parsed(options, AS_IT_IS, {})[1].end_fill:
        raise ValueError(
            f"The way {name!r} changes `end_fill`, and a text with other ends is another text: its "
            "bound cannot be held against the recipe's. Leave it out."
        )
    steps = {} if options.max_steps is None else {"max_steps": options.max_steps}
    return [options.recipe, *recipe_words({**changes, **steps}, TRAINING)]


def check_read_alike(options: TrainingsArguments, ways: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a way whose tokenizer reads the held-out texts otherwise than the recipe's does.

    Masks are common to both only where the tokens are, and equal counts of tokens do not tell.

    Raises:
        ValueError: naming the way.
    """
    own: tuple[Any, ...] | None = None
    recipe, _, _ = parsed(options, AS_IT_IS, {})
    for name, changes in ways.items():
        model, _, _ = parsed(options, name, changes)
        if all(getattr(model, one) == getattr(recipe, one) for one in OF_TOKENIZERS):
            continue
        own = own or reading_of(options, recipe)
        if reading_of(options, model) != own:
            raise ValueError(
                f"The way {name!r} reads the held-out texts as other tokens than the recipe does, "
                "so that no masks are common to both and their bounds cannot be compared in pairs. "
                "Leave it out, or give it the recipe's `tokenizer`."
            )


def reading_of(options: TrainingsArguments, model: ModelArguments) -> tuple[Any, ...]:
    """Return the ids of the held-out texts by a training's tokenizer, and of its special tokens."""
    tokenizer = load_tokenizer(model)
    roles = tokenizer_fields(tokenizer)
    prepared = evaluate.load_examples(held_out(options, options.recipe), tokenizer, None)
    special = ("mask_token_id", "prefix_ids", "suffix_ids", "special_token_ids")
    return evaluate.ids_of(prepared), *(roles[role] for role in special)


def parsed(
    options: TrainingsArguments, name: str, changes: Mapping[str, Any]
) -> tuple[ModelArguments, DataArguments, TrainArguments]:
    """Read the recipe with the changes of a way, as `scripts/train.py` will.

    Raises:
        ValueError: for options that it does not know or does not take, naming the way.
    """
    recipe = {**load_recipe(options.recipe), "output_dir": options.output_dir, **changes}
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            model, data, training = parse_options(TRAINING, recipe_words(recipe, TRAINING))
        check_together(model, data, training)
    except SystemExit as error:  # how a command line ends that is refused
        reason = said.getvalue().split("error: ", 1)[-1].strip()
        raise ValueError(f"The way {name!r}: {reason}") from error
    except ValueError as error:
        raise ValueError(f"The way {name!r}: {error}") from error
    return model, data, training


def place_of(folder: Path, name: str, seed: int) -> Path:
    """Return the folder of one training."""
    return folder / f"{'_'.join(name.split())}-{seed}"


def check_kept(runs: Mapping[Path, Sequence[str]], number: int) -> None:
    """Refuse to take a training for another one that is kept in its folder.

    Args:
        runs: the command line of each training by its folder.
        number: of trainings.

    Raises:
        ValueError: for two of one folder, or one that was trained by other options.
    """
    if len(runs) < number:
        raise ValueError(
            "Two ways of `ways` have names that differ in blanks and `_` alone, and so one folder; "
            "name one of them otherwise."
        )
    for place, words in runs.items():
        if not (place / METRICS_NAME).exists():
            continue
        kept = str(place / RECIPE_NAME)
        one, other = (parse_options(TRAINING, [*w, "--output_dir=."]) for w in ([kept], words))
        if one != other:
            raise ValueError(
                f"{str(place)!r} holds a training by other options, which {kept!r} names. Give "
                "the way another name, or remove that folder."
            )


def train(words: Sequence[str], folder: Path) -> None:
    """Train in a process of its own, or go on where one was interrupted.

    Raises:
        RuntimeError: where it ends badly.
    """
    if (folder / METRICS_NAME).exists():
        return
    program = str(Path(__file__).with_name("train.py"))
    # All it says goes to the standard error, so that the table stands alone in the output.
    words = [sys.executable, program, *words, f"--output_dir={folder}"]
    ended = subprocess.run(words, stdout=2, check=False)
    if ended.returncode:
        raise RuntimeError(
            f"The training into {str(folder)!r} ended with exit code {ended.returncode}; what it "
            "said stands above. The same command goes on from there."
        )


def compared(
    options: TrainingsArguments, asked: Mapping[str, Sequence[str]], folder: Path
) -> dict[str, Any]:
    """Measure every training beside that of the recipe with the same seed.

    Returns:
        For each way the bound of each seed, its differences, their mean and error, and seconds.
    """
    found: dict[str, Any] = {
        name: {"options": list(words[1:]), "bounds": [], "differences": [], "seconds": []}
        for name, words in asked.items()
    }
    with ProgressBar("Measuring", len(asked) * len(options.seeds), "training") as told:
        for seed in options.seeds:
            base: NelboOutput | None = None
            for name, entry in found.items():
                place = place_of(folder, name, seed)
                bound = bound_of(options, place)
                base = base or bound  # the recipe stands first
                entry["bounds"].append(bound.nats_per_token)
                entry["differences"].append(compare_bounds(bound, base).nats_per_token.figures())
                metrics = json.loads((place / METRICS_NAME).read_text(encoding="utf-8"))
                entry["seconds"].append(metrics["seconds"])
                told.update(1)
    for entry in found.values():
        values = [one["value"] for one in entry["differences"]]
        entry["difference"] = statistics.fmean(values)
        if len(values) > 1:
            entry["std_error"] = statistics.stdev(values) / math.sqrt(len(values))
        else:
            entry["std_error"] = entry["differences"][0]["std_error"]
    return found


def bound_of(options: TrainingsArguments, place: Path) -> NelboOutput:
    """Estimate the bound of one training on the held-out texts of its recipe."""
    asked = held_out(options, str(place))
    model, tokenizer = evaluate.load(asked, asked.model)
    prepared = evaluate.prepare(asked, model, tokenizer)
    with torch.no_grad():
        return evaluate.bound_of(model, tokenizer, prepared, asked)


def held_out(options: TrainingsArguments, model: str) -> evaluate.EvaluateArguments:
    """Return what is asked of `scripts/evaluate.py`: a model on the recipe's held-out texts."""
    _, data, _ = parsed(options, AS_IT_IS, {})
    config = data.sources[0][1] if data.eval_dataset is None else None
    shared = {f.name for f in fields(evaluate.EvaluateArguments)} & {f.name for f in fields(data)}
    return evaluate.EvaluateArguments(
        **{
            **{name: getattr(data, name) for name in shared},
            "model": model,
            "dataset": data.eval_dataset or data.dataset[0],
            "dataset_config": config,
            "split": data.eval_split,
            "pack": data.pack == "joined",  # separate ones are measured one by one, as in training
            "num_examples": options.num_examples,
            "num_samples": options.num_samples,
            "batch_size": options.batch_size,
        }
    )


def table_of(found: Mapping[str, Any], num_seeds: int) -> list[str]:
    """Write the figures as a Markdown table."""
    error = "over seeds" if num_seeds > 1 else "over texts, one seed"
    lines = [
        f"| way | bound, nats per token | less the recipe's (standard error {error}) | time |",
        "|---|---|---|---|",
    ]
    base = statistics.fmean(found[AS_IT_IS]["seconds"])
    for name, entry in found.items():
        bound, seconds = statistics.fmean(entry["bounds"]), statistics.fmean(entry["seconds"])
        told = f"{entry['difference']:+.4f} ± {entry['std_error']:.4f}" if name != AS_IT_IS else ""
        lines.append(f"| {name} | {bound:.4f} | {told} | {seconds / base:.2f} |")
    return lines


if __name__ == "__main__":
    run_program(main)
