"""Train a causal language model that judges written texts, where none can be had.

    python -m scripts.train_judge --written_by runs/demo/model --output_dir runs/judge
    python scripts/evaluate_texts.py --model runs/demo/model --dataset runs/demo/verses \
        --split validation --judge runs/judge --output_dir runs/quality

GPT-2's shape and a tokenizer of its own learn the King James verses (extra `demo`), or another
`--dataset`; what `scripts/compare_with_causal.py` trains is kept here, so that
`AutoModelForCausalLM` loads it. `--written_by` names whom it is to judge: it learns the texts as
that generator's tokenizer gives them back, in its case and with its blanks. A judge that knows
them as they are printed finds whatever is written in another form unlikely, real texts too. One
that has read so little is a poor one: its perplexity of held-out blocks stands in `judge.json`, and
that of held-out texts is the first row of what it judges. Interrupted, the same command goes on;
with a larger `--max_steps` it learns further.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from transformers import GPT2LMHeadModel

from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.text_quality import read_back
from hf_maskgit.evaluation.written_folders import claim_folder
from hf_maskgit.hub.loading import load_tokenizer
from hf_maskgit.training.baseline_runs import BaselineRun, Plan
from hf_maskgit.training.recipes import check_least, option, parse_options, required, run_program
from hf_maskgit.training.text_baselines import Causal, Measure, Shape

from .compare_with_causal import CausalArguments, cut, digest_of, texts_of

_MEASURED_TOGETHER = 64


@dataclass
class JudgeArguments:
    """What is learned, for how long."""

    output_dir: str = required("Folder of the judge.")
    dataset: str | None = option(
        None,
        "Texts: a folder of save_to_disk with the splits `train` and `validation`. Default: the "
        "King James verses, whole chapters held out.",
    )
    text_column: str = option("text", "Column that holds the texts.")
    written_by: str | None = option(
        None,
        "Generator that is to be judged, a folder or a name on the Hub: texts are learned in the "
        "form that its tokenizer gives back. Default: as they are.",
    )
    max_steps: int = option(1500, "Updates.")
    eval_every: int = option(500, "Updates between two measurements.")
    vocab_size: int = option(2048, "Ids of the tokenizer that is learned from the texts.")
    length: int = option(256, "Tokens of a block; no text that is judged may have more.")
    hidden_size: int = option(128, "Channels.")
    num_layers: int = option(4, "Layers.")
    num_heads: int = option(4, "Heads of the attention.")
    batch_size: int = option(4, "Blocks per update.")
    learning_rate: float = option(2e-3, "Learning rate once it has risen; it never falls.")
    warmup_steps: int = option(50, "Updates for which it rises.")
    eval_blocks: int = option(64, "Held-out blocks to measure on, spread evenly.")
    seed: int = option(0, "Seed of weights and order.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, eval_blocks=2)
        self.as_comparison()

    def as_comparison(self) -> CausalArguments:
        """Say the same in the words of the comparison, which checks them."""
        shared = {n: value for n, value in asdict(self).items() if n != "written_by"}
        return CausalArguments(**shared, ways=["causal"])


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, save, and return what it finds of held-out texts."""
    (options,) = parse_options((JudgeArguments,), argv, "Train a causal judge.")
    theirs = None if options.written_by is None else load_tokenizer(options.written_by)
    comparison = options.as_comparison()
    texts = texts_of(comparison)
    if theirs is not None:
        texts = {name: read_back(some, theirs) for name, some in texts.items()}
    train, held_out, tokenizer = cut(texts, comparison)
    tokenizer.bos_token = tokenizer.eos_token  # an end stands before every text it has read
    folder = Path(options.output_dir)
    free = ("output_dir", "max_steps")  # it may learn further
    decides = {**asdict(options), "blocks": digest_of(train, held_out)}
    claim_folder(folder, {n: value for n, value in decides.items() if n not in free})
    shape = Shape(options.length, options.hidden_size, options.num_layers, options.num_heads)
    plan = Plan(**{name: getattr(options, name) for name in Plan.__dataclass_fields__})
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    run = BaselineRun(partial(Causal, shape, tokenizer), plan, folder / "training", device)
    run.learn(train, held_out, Measure(4, _MEASURED_TOGETHER, options.seed))
    cast(GPT2LMHeadModel, run.learner.network).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    last = run.progress.curve[-1]
    found = {**last, "perplexity": math.exp(last["nats_per_token"])}
    found["num_parameters"] = run.progress.num_parameters
    found["tokens_read"] = run.progress.updates * options.batch_size * options.length
    (folder / "judge.json").write_text(figures_text(found) + "\n", encoding="utf-8")
    print(figures_text(found))
    return found


if __name__ == "__main__":
    run_program(main)
