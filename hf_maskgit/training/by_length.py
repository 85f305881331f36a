"""A short run on a slow machine: batches of one length each, so that nothing is padding."""

from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..core.modeling_maskgit import MaskGitForMaskedLM
from .arguments import TrainArguments
from .building import make_accelerator
from .loop import TrainingLoop
from .orders import batches_of_one_length
from .passes import UpdateBatches, UpdateOrder


def train_by_length(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    examples: Dataset,
    options: TrainArguments,
    model_folder: Path,
) -> None:
    """Train one process on batches of one length each, without evaluation, and save the model.

    It takes the examples in the same batches in every epoch: for short runs on a slow machine,
    where half of the work would be padding.

    Args:
        model: in float32.
        tokenizer: the one the model was made with.
        examples: columns `input_ids` and `example_id`.
        options: how to train; `output_dir` is made.
        model_folder: where model and tokenizer go.
    """
    Path(options.output_dir).mkdir()
    options = replace(options, eval_texts=0)
    loop = TrainingLoop(make_accelerator(options), model, tokenizer, examples, None, options)
    batches = batches_of_one_length(examples, options.per_device_batch_size, options.seed)
    rows = torch.tensor(batches)
    assert isinstance(loop.batches, UpdateBatches)
    loop.batches.order = UpdateOrder(lambda epoch: rows)
    loop.run()
    loop.save_model(model_folder)
