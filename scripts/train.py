"""Turn an encoder into a generator by masked diffusion.

    # a pretrained encoder, one text per line, on every GPU of this machine
    accelerate launch scripts/train.py --encoder answerdotai/ModernBERT-base --dataset verses.txt \
        --validation_fraction 0.05 --max_length 64 --output_dir runs/verses

    # what a run would be: data, updates, memory, disk, time; then it stops
    accelerate launch scripts/train.py scripts/recipes/verses.yaml --dry_run

    # options from a recipe; the command line wins
    accelerate launch scripts/train.py scripts/recipes/verses.yaml --learning_rate 5e-5

    # killed? The same command goes on exactly where it was interrupted, and so does
    accelerate launch scripts/train.py runs/verses/training_options.yaml

    # a new encoder instead of a pretrained one
    python scripts/train.py --encoder bert --from_scratch --tokenizer bert-base-uncased \
        --encoder_overrides '{"hidden_size": 256, "num_attention_heads": 4}' --dataset wikitext \
        --dataset_config wikitext-2-raw-v1 --eval_split validation --pack --output_dir runs/small

    # the model, its tokenizer and its card go to the Hub at the end; needs `hf auth login`
    accelerate launch scripts/train.py scripts/recipes/verses.yaml --push_to_hub \
        --hub_model_id me/verses --license apache-2.0

`python scripts/train.py --help` lists all options.
"""

import logging
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed

from hf_maskgit.core.trained_length import note_length
from hf_maskgit.evaluation.texts import check_writes
from hf_maskgit.hub.card import write_model_card
from hf_maskgit.hub.push import Push, check_access, check_metadata, open_repository, publish
from hf_maskgit.hub.training_card import describe
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.beginning import Beginning, where_to_begin
from hf_maskgit.training.building import load_model, make_accelerator
from hf_maskgit.training.checkpoints import (
    BEST_FOLDER,
    checkpoints,
    clear_run,
    how_to_go_on,
)
from hf_maskgit.training.curves import draw_own_curves
from hf_maskgit.training.data import Data, check_together, load_data, tokenizer_for
from hf_maskgit.training.dry_run import disk_of, plan_of
from hf_maskgit.training.engines import engine_of
from hf_maskgit.training.loop import TrainingLoop
from hf_maskgit.training.metrics import write_metrics
from hf_maskgit.training.packed_documents import check_separates
from hf_maskgit.training.recipes import (
    RECIPE_NAME,
    given_options,
    parse_options,
    run_program,
    save_recipe,
)
from hf_maskgit.training.run_facts import facts_of_options
from hf_maskgit.training.run_files import (
    UNFINISHED,
    check_room,
    in_every_process,
    told_if_it_fails,
)
from hf_maskgit.training.run_lock import RunLock
from hf_maskgit.training.stopping import RunStopped, StopSignals
from hf_maskgit.training.trackers import start_trackers


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    model_options, data_options, options = parse_options(
        (ModelArguments, DataArguments, TrainArguments), argv, "Train a masked-diffusion generator."
    )
    check_together(model_options, data_options, options)

    # Where: an output folder that no other run uses, and the devices
    output_dir = Path(options.output_dir)
    resumed, overwrite = options.resume_from_checkpoint, options.overwrite_output_dir
    beginning = where_to_begin(output_dir, resumed, overwrite)
    accelerator = make_accelerator(options)
    set_up_logging(accelerator.is_main_process)
    if beginning.reason is not None and not options.dry_run:
        logging.getLogger("hf_maskgit").info(beginning.reason)
    if options.dry_run:
        loop, data = prepare(accelerator, model_options, data_options, options)
        plan = plan_of(loop, data)  # by all processes
        if accelerator.is_main_process:
            print(*plan.lines(), "Nothing was written.", sep="\n")
        return
    if options.push_to_hub and accelerator.is_main_process:
        repo_id = claim_repository(options)
    with ExitStack() as to_the_end:

        def lock() -> None:
            if accelerator.is_main_process:
                to_the_end.enter_context(RunLock(output_dir))

        in_every_process(accelerator, lock)
        train(accelerator, model_options, data_options, options, beginning)
    accelerator.end_training()
    if options.push_to_hub and accelerator.is_main_process:
        # after the end: the other processes would run into a time limit waiting for a long upload
        page = publish(Push(folder=output_dir, repo_id=repo_id))
        logging.getLogger("hf_maskgit").info("Pushed to %s.", page)


def prepare(
    accelerator: Accelerator,
    model_options: ModelArguments,
    data_options: DataArguments,
    options: TrainArguments,
) -> tuple[TrainingLoop, Data]:
    """Load data and model, and build the loop; nothing is written.

    Args:
        accelerator: from `make_accelerator`.
        model_options: what is trained.
        data_options: on what.
        options: how.
    """
    # What: the same weights in every process, and data tokenised once
    set_seed(options.seed)
    tokenizer = tokenizer_for(model_options, data_options)
    model = load_model(model_options, tokenizer)
    if data_options.pack == "separate":
        check_separates(model)
    with accelerator.main_process_first():
        data = load_data(data_options, tokenizer, model.max_positions, options.seed)
    if data_options.streaming:  # no text is longer, and nobody looks for the longest
        note_length(model.config, data_options.max_length)
    if options.train != "critic":  # which leaves the texts that are written as they are
        model.config.end_fill = data_options.end_fill  # what this training shows of ends

    set_seed(options.seed, device_specific=True)  # dropout differs between processes
    loop = TrainingLoop(
        accelerator,
        model,
        tokenizer,
        data.train,
        data.held_out,
        options,
        num_workers=data_options.num_workers,
        facts=facts_of_options(model_options, data_options),
        max_unknown_share=data_options.max_unknown_share,
    )
    check_writes(model)  # as its card will ask it to
    return loop, data


def train(
    accelerator: Accelerator,
    model_options: ModelArguments,
    data_options: DataArguments,
    options: TrainArguments,
    beginning: Beginning,
) -> None:
    """Train, and leave model, tokenizer and card in `output_dir`.

    Args:
        accelerator: from `make_accelerator`.
        model_options: what is trained.
        data_options: on what.
        options: how.
        beginning: from `where_to_begin`.
    """
    loop, data = prepare(accelerator, model_options, data_options, options)
    if beginning.checkpoint is not None:
        loop.resume(beginning.checkpoint)  # before anything is written: it may be refused
    output_dir = Path(options.output_dir)
    in_every_process(
        accelerator,
        lambda: prepare_folder(loop, model_options, data_options, clears=beginning.clears),
    )
    told = given_options(model_options, data_options, options)
    start_trackers(accelerator, output_dir, told, loop.progress.step)
    with StopSignals(accelerator.is_main_process) as stop:
        loop.stop = stop
        try:
            loop.run()
        except KeyboardInterrupt as interrupt:
            said = how_to_go_on(output_dir, options.overwrite_output_dir)
            raise RunStopped(said, stop.received or signal.SIGINT) from interrupt

    # Keep
    loop.save_model(output_dir)
    # the card's samples are the saved model's
    whole_weights = engine_of(accelerator).whole_weights(accelerator.unwrap_model(loop.model))
    with loop.published_weights(), whole_weights:
        if accelerator.is_main_process:
            write_metrics(loop, output_dir)
            draw(output_dir)
            reports = data.train_report, data.held_out_report
            card = describe(loop, model_options, data_options, options, reports)
            write_model_card(output_dir, card)


def prepare_folder(
    loop: TrainingLoop, model_options: ModelArguments, data_options: DataArguments, *, clears: bool
) -> None:
    """Replace a former run where that is wanted, see that there is room, and write the recipe."""
    options = loop.options
    if not loop.accelerator.is_main_process:
        return
    output_dir = Path(options.output_dir)
    if clears:
        clear_run(output_dir)
    best_so_far = loop.progress.best_nats, loop.progress.best_auroc
    if best_so_far != (None, None) and not (output_dir / BEST_FOLDER).is_dir():
        if options.load_best_model_at_end:
            raise ValueError(
                f"`load_best_model_at_end` may take the best model so far, which is not in "
                f"{str(output_dir / BEST_FOLDER)!r}; copy it there, or leave that option out."
            )
        logging.getLogger("hf_maskgit").warning(
            "The best model so far is not in %s; only a better one will be written there.",
            output_dir / BEST_FOLDER,
        )
    check_room(output_dir, disk_of(loop, present=len(checkpoints(output_dir))))
    # how this run was started is no part of the recipe
    recipe = replace(
        options, resume_from_checkpoint=None, allow_changes=None, overwrite_output_dir=False
    )
    path = output_dir / RECIPE_NAME
    with told_if_it_fails(path, "Make room, or name another `output_dir`."):
        aside = path.with_name(path.name + UNFINISHED)
        save_recipe(aside, model_options, data_options, recipe)
        aside.replace(path)


def draw(output_dir: Path) -> None:
    """Draw the curves of the run, or say what is missing to do so."""
    try:
        draw_own_curves(output_dir)
    except ImportError as error:
        logging.getLogger("hf_maskgit").warning("%s", error)


def set_up_logging(is_main_process: bool) -> None:
    """Let one process speak."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskgit").setLevel(logging.INFO if is_main_process else logging.ERROR)
    # every checkpoint, it warns that tied weights are saved once, as they should be
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def claim_repository(options: TrainArguments) -> str:
    """Find out now, and not after hours of training, whether the push at the end can succeed.

    Returns:
        The repository's whole name; from now on it exists.
    """
    repo_id = check_access(options.hub_model_id or Path(options.output_dir).resolve().name)
    check_metadata(options.license, options.language)
    return open_repository(repo_id, private=True if options.hub_private_repo else None)


if __name__ == "__main__":
    run_program(main)
