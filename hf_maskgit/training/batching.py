"""Which batches a run takes: of a data set, shuffled or grouped by length, or of a stream."""

from functools import partial

from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..core.configuration_maskgit import MaskGitConfig
from .arguments import TrainArguments
from .collator import DataCollatorForMaskGit
from .orders import grouped_updates, lengths_of, shuffled_updates
from .passes import UpdateBatches, UpdateOrder, UpdateShares
from .stream_batches import StreamBatches
from .streams import StreamedExamples
from .time_samplers import TIME_SAMPLERS


def batches_of(
    examples: Dataset | StreamedExamples,
    collator: DataCollatorForMaskGit,
    accelerator: Accelerator,
    options: TrainArguments,
    update_size: int,
    num_workers: int,
) -> UpdateBatches | StreamBatches:
    """Make the batches of a run.

    Args:
        examples: to learn from.
        collator: masks them.
        accelerator: knows the processes and the device.
        options: how to train.
        update_size: examples of one update, of all processes.
        num_workers: processes that prepare batches for this one.

    Raises:
        ValueError: for lanes of a stream that do not fit, or a stream that is to be grouped.
    """
    processes = accelerator.process_index, accelerator.num_processes
    times = TIME_SAMPLERS[options.time_sampler]
    if isinstance(examples, StreamedExamples):
        check_not_grouped(options.group_by_length)
        return StreamBatches(
            examples, collator, update_size, *processes, accelerator.device, num_workers, times
        )
    shares = UpdateShares(examples, collator, *processes)
    if options.group_by_length:
        updates_of = partial(grouped_updates, lengths_of(examples), update_size, options.seed)
    else:
        updates_of = partial(shuffled_updates, len(examples), update_size, options.seed)
    return UpdateBatches(shares, UpdateOrder(updates_of), accelerator.device, num_workers, times)


def collator_of(
    config: MaskGitConfig, tokenizer: PreTrainedTokenizerBase, options: TrainArguments
) -> DataCollatorForMaskGit:
    """Make the collator of a run.

    Args:
        config: of the model.
        tokenizer: the model's.
        options: how to train.

    Raises:
        ValueError: for times that do not go with the weights of the loss.
    """
    check_times(options.time_sampler, config.weighs_by_time)
    return DataCollatorForMaskGit.from_config(
        config,
        tokenizer,
        choice=options.choice,
        seed=options.seed,
        count_unknown=False,  # by words, when the texts were tokenised
    )


def check_not_grouped(group_by_length: bool) -> None:
    """Raise a ValueError where a stream is to be grouped by length."""
    if group_by_length:
        raise ValueError(
            "`group_by_length` sorts all examples by length, and nobody has seen all of a "
            "stream. Leave it out, or train without `streaming`."
        )


def check_times(time_sampler: str, weighs_by_time: bool) -> None:
    """Refuse times that follow the loss where the loss is not weighed by its time.

    Args:
        time_sampler: a key of `TIME_SAMPLERS`.
        weighs_by_time: the model's.

    Raises:
        ValueError: naming both.
    """
    if TIME_SAMPLERS[time_sampler].adapts and not weighs_by_time:
        raise ValueError(
            f"time_sampler={time_sampler!r} corrects by the weight of each loss "
            "how often its time is drawn, and the model's use_simple_mdlm_loss_weight=False "
            "weighs all alike: it would learn something else. Use time_sampler='uniform', or "
            "set `use_simple_mdlm_loss_weight`."
        )
