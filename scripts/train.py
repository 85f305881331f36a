"""Turn an encoder into a generator by masked diffusion.

    # a pretrained encoder, one text per line, on every GPU of this machine
    accelerate launch scripts/train.py --encoder answerdotai/ModernBERT-base --dataset verses.txt \
        --validation_fraction 0.05 --max_length 64 --output_dir runs/verses

    # options from a recipe; the command line wins
    accelerate launch scripts/train.py scripts/recipes/text.yaml --learning_rate 5e-5

    # go on exactly where a run was interrupted
    accelerate launch scripts/train.py runs/verses/training_options.yaml \
        --resume_from_checkpoint latest

    # a new encoder instead of a pretrained one
    python scripts/train.py --encoder bert --from_scratch --tokenizer bert-base-uncased \
        --encoder_overrides '{"hidden_size": 256, "num_attention_heads": 4}' --dataset wikitext \
        --dataset_config wikitext-2-raw-v1 --eval_split validation --pack --output_dir runs/small

`python scripts/train.py --help` lists all options.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path

from accelerate.utils import set_seed

from hf_maskgit.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.building import load_examples, load_model, load_tokenizer, make_accelerator
from hf_maskgit.checkpoints import check_output_dir, clear_run, find_checkpoint
from hf_maskgit.model_card import GeneratorCard, write_model_card
from hf_maskgit.recipes import RECIPE_NAME, given_options, parse_options, save_recipe
from hf_maskgit.training import TrainingLoop

SETTINGS_ON_THE_CARD = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "mixed_precision",
    "choice",
    "seed",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    model_options, data_options, options = parse_options(
        (ModelArguments, DataArguments, TrainArguments), argv, "Train a masked-diffusion generator."
    )

    # Where: an output folder that no other run uses, and the devices
    resume, output_dir = options.resume_from_checkpoint, Path(options.output_dir)
    check_output_dir(output_dir, resume=resume is not None, overwrite=options.overwrite_output_dir)
    checkpoint = find_checkpoint(resume, output_dir) if resume is not None else None
    accelerator = make_accelerator(options)
    set_up_logging(accelerator.is_main_process)

    # What: the same weights in every process, and data tokenised once
    set_seed(options.seed)
    tokenizer = load_tokenizer(model_options)
    model = load_model(model_options, tokenizer)
    with accelerator.main_process_first():
        train_examples, eval_examples = load_examples(
            data_options, tokenizer, model.max_positions, options.seed
        )

    # Train: dropout differs between processes
    set_seed(options.seed, device_specific=True)
    loop = TrainingLoop(
        accelerator,
        model,
        tokenizer,
        train_examples,
        eval_examples,
        options,
        num_workers=data_options.num_workers,
    )
    if accelerator.is_main_process:
        if options.overwrite_output_dir:
            clear_run(output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        # how this run was started is no part of the recipe
        recipe = replace(options, resume_from_checkpoint=None, overwrite_output_dir=False)
        save_recipe(output_dir / RECIPE_NAME, model_options, data_options, recipe)
    accelerator.wait_for_everyone()
    accelerator.init_trackers("hf_maskgit", given_options(model_options, data_options, options))
    if checkpoint is not None:
        loop.resume(checkpoint)
    loop.run()

    # Keep
    loop.save_model(output_dir)
    if accelerator.is_main_process:
        card = describe(loop, model_options, data_options, options)
        write_model_card(output_dir, card)
    accelerator.end_training()


def set_up_logging(is_main_process: bool) -> None:
    """Let one process speak."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskgit").setLevel(logging.INFO if is_main_process else logging.ERROR)
    # every checkpoint, it warns that tied weights are saved once, as they should be
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def describe(
    loop: TrainingLoop,
    model_options: ModelArguments,
    data_options: DataArguments,
    options: TrainArguments,
) -> GeneratorCard:
    """Gather what the model card says; its examples are the model's own words, not the data's."""
    model, tokenizer = loop.accelerator.unwrap_model(loop.model).eval(), loop.tokenizer
    (written,) = model.generate(seed=options.seed).tolist()
    text = [i for i in written if i not in tokenizer.all_special_ids] or [tokenizer.mask_token_id]
    middle = len(text) // 2
    masked = [*text[:middle], tokenizer.mask_token_id, *text[middle + 1 :]]
    words = tokenizer.batch_decode([text, masked, text[: max(1, middle)]])
    on_the_hub = not model_options.from_scratch and not Path(model_options.encoder).exists()
    names = [name for name in (data_options.dataset, data_options.eval_dataset) if name]
    held_out = data_options.eval_dataset or data_options.dataset
    return GeneratorCard(
        model_id=options.output_dir,
        encoder=f"`{model_options.encoder}`"
        + (" with random weights" if model_options.from_scratch else ""),
        base_model=model_options.encoder if on_the_hub else None,
        num_parameters=model.num_parameters(),
        training_data=f"{loop.progress.setting['training_examples']:,} examples of "
        f"`{data_options.dataset}`, split `{data_options.train_split}`.",
        training={
            "updates": loop.num_updates,
            "examples per update": loop.progress.setting["examples_per_update"],
            **{name.replace("_", " "): getattr(options, name) for name in SETTINGS_ON_THE_CARD},
        },
        datasets=[name for name in names if not glob(name)],
        held_out_data=f"{Path(held_out).name}, held out",
        bound=loop.bound,
        masked_example=words[1],
        prompt_example=words[2],
        samples=[words[0]],
        sampling="Written from nothing with the options stored in `generation_config.json`.",
    )


if __name__ == "__main__":
    main()
