"""Facts: whatever shapes a run is compared, named, and allowed by name alone."""

import numpy as np
import pytest
from accelerate.utils import set_seed
from datasets import Dataset, concatenate_datasets
from transformers import BertForMaskedLM

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.loop import TrainingLoop
from hf_maskgit.training.run_facts import (
    check_same,
    check_something_is_left,
    data_checksum,
    tokenizer_checksum,
    what_changed,
)
from scripts.train import main
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import (
    SMALL,
    examples,
    fresh_encoder_config,
    words,
    write_inputs,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def facts(folder, parts=None, encoder=None, data=(64, 0), held_out=None, **options):
    """What a loop with these options would write into its checkpoints."""
    set_seed(0)
    made = BertForMaskedLM(fresh_encoder_config(**(encoder or {})))
    model = MaskGitForMaskedLM.from_encoder(made, tokenizer=word_tokenizer(), **(parts or {}))
    arguments = TrainArguments(output_dir=str(folder), **{**SMALL, **options})
    accelerator = make_accelerator(arguments)
    rest = examples(*data), None if held_out is None else examples(*held_out), arguments
    return TrainingLoop(accelerator, model, word_tokenizer(), *rest).progress.setting


CRITIC = {"token_critic": "self"}
CHANGES = {
    "seed = 0": {"seed": 1},
    "optim = adamw_torch_fused": {"optim": "muon"},
    "learning_rate = 0.01": {"learning_rate": 0.1},
    "weight_decay = 0.01": {"weight_decay": 0.0},
    "adam_beta1 = 0.9": {"adam_beta1": 0.8},
    "adam_beta2 = 0.98": {"adam_beta2": 0.8},
    "adam_epsilon = 1e-08": {"adam_epsilon": 1e-7},
    "max_grad_norm = 1.0": {"max_grad_norm": 0.0},
    "lr_scheduler_type = linear": {"lr_scheduler_type": "cosine"},
    "warmup_steps = 0.05": {"warmup_steps": 0.5},
    "num_updates = 6": {"max_steps": 7},
    "per_device_batch_size = 4, this run has 8; gradient_accumulation_steps": {
        "per_device_batch_size": 8,
        "gradient_accumulation_steps": 1,
    },
    "examples_per_update = 8": {"per_device_batch_size": 2},
    "gradient_checkpointing = False": {"gradient_checkpointing": True},
    "choice = exact": {"choice": "bernoulli"},
    "schedule = linear": {"parts": {"schedule": "cosine"}},
    "no_replace_prob = 0.15": {"parts": {"no_replace_prob": 0.1}},
    "random_token_prob = 0.1": {"parts": {"random_token_prob": 0.2}},
    "corruption_prob = 0.5": {"parts": {"corruption_prob": 0.0}},
    "use_simple_mdlm_loss_weight = True": {"parts": {"use_simple_mdlm_loss_weight": False}},
    "self_cond = False": {"parts": {"self_cond": True}},
    "token_critic = None": {"parts": CRITIC},
    "critic_loss_weight = 1.0": {"parts": {"critic_loss_weight": 0.5}},
    "encoder_config.hidden_dropout_prob = 0.1": {"encoder": {"hidden_dropout_prob": 0.2}},
    "training_examples = 64": {"data": (65, 0)},
    "training_data = ": {"data": (64, 1)},
    "eval_data = None": {"held_out": (8, 1)},
    "eval_every = 1000": {"eval_every": 2},
    "eval_batch_size = 32": {"eval_batch_size": 2},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return facts(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("said", CHANGES)
def test_every_change_is_named_with_both_values(tmp_path, plain, said):
    other = facts(tmp_path, **CHANGES[said])
    with pytest.raises(ValueError, match=r"was written with .*, this run has .* or start a n") as e:
        check_same(plain, other)
    assert said in str(e.value)
    # it says how to allow what it names, and that is enough
    allowed = str(e.value).split("--allow_changes ")[1].split(", or start")[0].split()
    assert check_same(plain, other, allowed) == {name.partition(".")[0] for name in allowed}


def test_mixed_precision_is_compared(tmp_path, plain):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(ValueError, match="mixed_precision = no, this run has bf16"):
        check_same(plain, facts(tmp_path, mixed_precision="bf16"))


def test_what_only_tells_or_saves_may_change(tmp_path, plain):
    changes = {"log_every": 3, "checkpoint_every": 2, "keep_checkpoints": 5}
    assert check_same(plain, facts(tmp_path, **changes)) == set()


def test_all_differences_are_named_at_once():
    written = {"num_processes": 2, "seed": 1, "config": {"a": 1, "b": 2, "old": 0}}
    present = {"num_processes": 1, "seed": 2, "config": {"a": 1, "b": 3, "new": 0}, "extra": True}
    said = r"num_processes = 2, this run has 1; seed = 1, this run has 2; config.b = 2, this run "
    with pytest.raises(ValueError, match=said + "has 3; extra = not stated, this run has True"):
        check_same(written, present)
    with pytest.raises(
        ValueError, match="names 'sede'; what can differ is num_processes, seed, config, extra"
    ):
        check_same(written, present, ["sede"])


def test_whoever_has_other_processes_hears_how_to_keep_the_updates():
    written = {"num_processes": 2, "examples_per_update": 8}
    present = {"num_processes": 1, "examples_per_update": 4}
    said = "the same examples where .* x processes is 8, as before"
    with pytest.raises(ValueError, match=said):
        check_same(written, present)
    present["examples_per_update"] = 8
    with pytest.raises(ValueError, match="allow the change with --allow_changes num_processes, or"):
        check_same(written, present)
    assert check_same(written, present, ["num_processes"]) == {"num_processes"}


def test_what_follows_from_a_change_is_said():
    place = " The pass that was going on is left, and the next one begins."
    streams = (
        " With another number of processes each begins a new random stream, for dropout, for which "
        "texts look back on a pass before and for what a critic is shown; nothing else changes."
    )
    assert what_changed({"num_updates"}) == "another num_updates."
    assert what_changed({"seed"}) == "another seed." + place
    assert what_changed({"group_by_length"}) == "another group_by_length." + place
    assert what_changed({"optim"}) == (
        "another optim. What the former optimizer remembered is left, and the new one begins anew."
    )
    assert what_changed({"num_processes"}) == "another num_processes." + streams
    both = {"num_processes", "examples_per_update"}
    assert what_changed(both) == "another examples_per_update, num_processes." + place + streams


def test_the_checksum_of_data_is_of_its_contents_and_order():
    data = examples(20)
    plain = data_checksum(data)
    halves = [data.select(range(7)), data.select(range(7, 20))]
    assert data_checksum(concatenate_datasets(halves)) == plain
    assert data_checksum(Dataset.from_list(list(data), features=data.features)) == plain
    others = [
        data.select(range(19)),
        data.select([1, 0, *range(2, 20)]),
        data.remove_columns("example_id"),
        data.add_column("maskable", [[1] * len(ids) for ids in data["input_ids"]]),
        data.add_column("note", [None, *"abcdefghijklmnopqrs"]),
    ]
    sums = [plain, *map(data_checksum, others)]
    assert len(set(sums)) == len(sums)
    # the same tokens cut otherwise
    one, other = ([[1, 2], [3]], [[1], [2, 3]])
    assert data_checksum(Dataset.from_dict({"a": one})) != data_checksum(
        Dataset.from_dict({"a": other})
    )
    assert data_checksum(Dataset.from_dict({"a": np.zeros((0, 2), int)}))


def test_the_checksum_of_a_tokenizer_is_of_its_table():
    assert tokenizer_checksum(word_tokenizer()) == tokenizer_checksum(word_tokenizer())
    grown = word_tokenizer()
    grown.add_tokens(["new"])
    special = word_tokenizer()
    special.add_special_tokens({"additional_special_tokens": ["w3"]})
    sums = [tokenizer_checksum(t) for t in (word_tokenizer(), grown, special)]
    assert len(set(sums)) == 3


@pytest.mark.wide
def test_a_refused_resume_changes_nothing_and_an_allowed_one_goes_on(tmp_path, caplog):
    inputs = write_inputs(tmp_path, num_texts=20)
    run = tmp_path / "run"
    main([*inputs, *words({**SMALL, "output_dir": run, "checkpoint_every": 3})])
    recipe = run / "training_options.yaml"
    log = run / "training_log.jsonl"
    log.write_text(log.read_text() + '{"step": 99}\n{"step": 7, "lo')
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    again = [str(recipe), "--resume_from_checkpoint=latest"]
    texts = (tmp_path / "texts.txt").read_text()
    for change, said in (
        (["--max_length=32"], "max_length = 16, this run has 32"),
        (["--pack"], "pack = no, this run has joined"),
        (["--validation_fraction=0.2"], "validation_fraction = None, this run has 0.2"),
    ):
        with pytest.raises(ValueError, match=said):
            main([*again, *change])
    (tmp_path / "texts.txt").write_text(texts.replace(texts.split()[0], "w33", 1))
    with pytest.raises(ValueError, match="written with training_data = .*, this run has"):
        main(again)
    (tmp_path / "texts.txt").write_text(texts)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    caplog.clear()
    longer = ["--max_steps=8", "--allow_changes", "num_updates"]
    main([*again, *longer])
    assert "Going on from checkpoint-6 with another num_updates." in caplog.text
    assert "1 lines of training_log.jsonl cannot be read and are left out." in caplog.text
    assert "allow_changes" not in recipe.read_text()
    main(again)  # the recipe is that of the longer run
    written = recipe.read_bytes()
    with pytest.raises(ValueError, match=r"has made 8 updates, and this run is one of 8: none"):
        main([*again, "--max_grad_norm=3", "--allow_changes", "max_grad_norm"])
    assert recipe.read_bytes() == written


def test_what_is_split_otherwise_may_end_a_run_that_has_made_all_updates():
    check_something_is_left({"num_processes", "examples_per_update"}, 8, 8)
    check_something_is_left({"learning_rate"}, 7, 8)
    for changed, step in (({"learning_rate"}, 8), ({"num_updates", "num_processes"}, 9)):
        with pytest.raises(ValueError, match="none is left to be made with another"):
            check_something_is_left(changed, step, 8)


def test_options_that_a_loop_does_not_see():
    from hf_maskgit.training.run_facts import facts_of_options

    found = facts_of_options(ModelArguments("bert"), DataArguments("texts.txt", max_length=9))
    assert found == {
        "encoder": "bert",
        "max_length": 9,
        "pack": "no",
        "too_long": "cut",
        "validation_fraction": None,
        "dataset_probs": None,
    }
    streamed = DataArguments("texts.txt", streaming=True, stream_lanes=4)
    found = facts_of_options(ModelArguments("bert"), streamed)
    assert (found["streaming"], found["stream_lanes"], found["shuffle_buffer"]) == (True, 4, 1000)
