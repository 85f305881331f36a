"""Options: declared once, defaults from a recipe, the command line wins, faults are named."""

import dataclasses

import pytest
import yaml

from hf_maskgit import MaskGitConfig
from hf_maskgit.core.configuration_maskgit import own_fields
from hf_maskgit.core.masking import Masking
from hf_maskgit.core.options import options_of
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.recipes import given_options, load_recipe, parse_options, save_recipe
from tests.support.project import ROOT

TYPES = (ModelArguments, DataArguments, TrainArguments)
NEEDED = ["--encoder=bert", "--dataset=texts.txt", "--output_dir=run"]
RECIPES = sorted((ROOT / "scripts" / "recipes").glob("*.yaml"))


def recipe(folder, text):
    (folder / "recipe.yaml").write_text(text)
    return str(folder / "recipe.yaml")


def refusal(capsys, *words):
    """The sentence with which the command line is refused."""
    with pytest.raises(SystemExit) as stopped:
        parse_options(TYPES, words)
    assert stopped.value.code == 2
    return capsys.readouterr().err.split("error: ", 1)[1]


def test_saved_options_read_back_equal(tmp_path):
    words = [
        *("--encoder=bert", "--from_scratch", "--tokenizer=words"),
        *("--encoder_overrides", '{"hidden_size": 8, "hidden_act": "relu"}'),
        *("--dataset=a: b #c.txt", "--output_dir=yes", "--mixed_precision=no", "--revision=1e3"),
        *("--learning_rate=1e-5", "--use_simple_mdlm_loss_weight=false", "--pack"),
        *("--validation_fraction=0.1", "--max_steps=7", "--schedule=cosine"),
    ]
    options = parse_options(TYPES, words)
    save_recipe(tmp_path / "saved.yaml", *options)
    assert parse_options(TYPES, [str(tmp_path / "saved.yaml")]) == options
    model, data, training = options
    assert (model.revision, training.output_dir, training.mixed_precision) == ("1e3", "yes", "no")
    assert (data.pack, training.learning_rate) == ("joined", 1e-5)
    defaults = parse_options(TYPES, NEEDED)
    save_recipe(tmp_path / "saved.yaml", *defaults)
    assert parse_options(TYPES, [str(tmp_path / "saved.yaml")]) == defaults


@pytest.mark.parametrize(
    ("line", "pack"), [("true", "joined"), ("false", "no"), ("no", "no"), ("joined", "joined")]
)
def test_a_recipe_may_say_whether_to_pack_or_how(tmp_path, line, pack):
    """As recipes of earlier releases do; and YAML reads `no` as false."""
    path = recipe(tmp_path, f"encoder: bert\ndataset: [a, b]\noutput_dir: b\npack: {line}")
    _, data, _ = parse_options(TYPES, [path])
    assert (data.pack, data.dataset) == (pack, ["a", "b"])
    assert DataArguments("a", pack=pack == "joined").pack == pack


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_defaults(tmp_path):
    path = recipe(
        tmp_path,
        "encoder: bert\ndataset: a\noutput_dir: b\nlearning_rate: 3e-4\npack: true\nseed: 5",
    )
    _, data, training = parse_options(
        TYPES, [path, "--learning_rate", "1e-4", "--pack", "no", "--dataset=c"]
    )
    assert (training.learning_rate, training.seed, data.pack, data.dataset) == (
        1e-4,
        5,
        "no",
        ["c"],
    )
    assert training.weight_decay == TrainArguments(output_dir="b").weight_decay
    _, data, training = parse_options(TYPES, [path])
    assert (training.learning_rate, data.pack) == (3e-4, "joined")  # YAML reads 3e-4 as a word


def test_a_recipe_may_be_json_and_hold_a_mapping(tmp_path):
    (tmp_path / "recipe.json").write_text(
        '{"encoder": "bert", "from_scratch": true, "tokenizer": "t", "dataset": "d",'
        ' "output_dir": "o", "encoder_overrides": {"hidden_size": 8}, "max_steps": null}'
    )
    model, _, training = parse_options(TYPES, [str(tmp_path / "recipe.json")])
    assert model.encoder_overrides == '{"hidden_size": 8}'
    assert training.max_steps is None


def test_a_list_in_a_recipe_is_a_list_of_words(tmp_path):
    @dataclasses.dataclass
    class Rates:
        rates: list[float] = dataclasses.field(default_factory=lambda: [0.5])

    path = recipe(tmp_path, "rates: [0.1, 1]")
    assert parse_options((Rates,), [path])[0].rates == [0.1, 1.0]
    assert parse_options((Rates,), [path, "--rates", "0.3"])[0].rates == [0.3]
    assert parse_options((Rates,), [])[0].rates == [0.5]


def test_unknown_options_are_named_with_what_was_perhaps_meant(tmp_path, capsys):
    said = refusal(capsys, *NEEDED, "--learning_rat", "1e-4")
    assert "Unknown option '--learning_rat'. Did you mean learning_rate?" in said
    said = refusal(capsys, *NEEDED, "--zzz=1")
    assert "Unknown option '--zzz=1'. --help lists all options." in said
    path = recipe(tmp_path, "encoder: bert\nlearning-rat: 1e-4")
    assert "Unknown option 'learning-rat'. Did you mean learning_rate?" in refusal(capsys, path)


def test_faulty_recipes_are_named(tmp_path, capsys):
    assert "Cannot read the recipe 'none.yaml' (No such file" in refusal(capsys, "none.yaml")
    assert "is no valid YAML" in refusal(capsys, recipe(tmp_path, "a: [1"))
    assert "must map options to values" in refusal(capsys, recipe(tmp_path, "- encoder"))
    said = refusal(capsys, recipe(tmp_path, "mixed_precision: no"))
    assert "`mixed_precision` reads as False in YAML" in said
    assert "in quotes" in said
    assert "`seed` reads as None in YAML" in refusal(capsys, recipe(tmp_path, "seed: null"))
    said = refusal(capsys, recipe(tmp_path, "max_steps: 1.5\n"))
    assert "max-steps: invalid int value: '1.5'" in said
    with pytest.raises(ValueError, match="Cannot read the recipe"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (['--encoder_overrides={"hidden_size": 8}'], "sets 'hidden_size'. That changes the enc"),
        (['--encoder_overrides={"layerdrop": 1}'], "'layerdrop' to 1; it is a probability in"),
        (['--encoder_overrides={"layerdrop": "0"}'], "to '0'; it is a probability in [0, 1)"),
        (["--encoder_overrides=0.1"], "`encoder_overrides` must be a JSON object such as"),
        (["--decoding=[]"], "`decoding` must be a JSON object such as"),
        (['--decoding={"oder": "margin"}'], "oder"),
        (
            ['--decoding={"order": "margin", "remask": "remdm_conf"}'],
            "goes with order 'random', got order='margin'",
        ),
        (['--decoding={"steps": 0}'], "`steps` must be an integer of at least 1, got 0"),
        (["--schedule=square"], "invalid choice: 'square'"),
        (["--lr_scheduler_type=step"], "invalid choice: 'step'"),
        (["--choice=poisson"], "invalid choice: 'poisson'"),
        (["--validation_fraction=0.1", "--eval_split=test"], "Give one or the other"),
        (["--validation_fraction=0.1", "--eval_dataset=a"], "Give one or the other"),
        (["--validation_fraction=1.0"], "must lie between 0 and 1, got 1.0"),
        (["--dataset_stop=all_exhausted"], "says when an epoch of a mixture with `dataset_probs`"),
        (["--max_length=0"], "`max_length` must be at least 1, got 0"),
        (["--num_proc=0"], "`num_proc` must be at least 1, got 0"),
        (["--num_workers=-1"], "`num_workers` must be at least 0, got -1"),
        (["--per_device_batch_size=0"], "`per_device_batch_size` must be at least 1, got 0"),
        (["--warmup_steps=-1"], "`warmup_steps` must be at least 0, got -1.0"),
        (["--weight_decay=nan"], "`weight_decay` must be at least 0, got nan"),
        (["--learning_rate=0"], "`learning_rate` must be greater than 0, got 0.0"),
        (["--num_train_epochs=-1"], "`num_train_epochs` must be greater than 0, got -1.0"),
        (["--num_train_epochs=inf"], "`num_train_epochs` must be finite, got inf"),
        (["--learning_rate=inf"], "`learning_rate` must be finite, got inf"),
        (["--warmup_steps=inf"], "`warmup_steps` must be finite, got inf"),
        (["--seed=-1"], "`seed` must be at least 0 and below 2**31, got -1"),
        (["--seed=4294967296"], "`seed` must be at least 0 and below 2**31, got 4294967296"),
        (["--adam_beta2=1"], "`adam_beta2` must lie in [0, 1), got 1.0"),
        (["--eval_samples=2"], "`eval_samples` must be an integer of at least 4, got 2"),
        (["--eval_samples=7"], "`eval_samples` must be even"),
        (
            ["--overwrite_output_dir", "--resume_from_checkpoint=latest"],
            "deletes what `resume_from_checkpoint` continues",
        ),
        (["--allow_changes", "seed"], "add `resume_from_checkpoint`, or leave it out"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(words, sentence, capsys):
    assert sentence in refusal(capsys, *NEEDED, *words)


def test_what_is_needed_is_asked_for(capsys):
    assert "required: --encoder" in refusal(capsys)


def test_a_slip_of_the_pen_is_named_where_an_option_is_missing(capsys):
    rest = ["--encoder=bert", "--output_dir=run"]
    for slip in (["--datset", "a.txt"], ["--datset=a.txt"], ["--data-set", "a.txt"]):
        said = refusal(capsys, *rest, *slip)
        assert said.startswith(f"Unknown option '{slip[0]}'. Did you mean dataset")
        assert "required: --dataset" in said
    # a value is none, and what resembles nothing or is known is not spoken of
    for words in (
        ["--revision", "--datset is a slip"],
        ["--zzz=1"],
        ["--no_pack"],
        ["--max-steps=1"],
    ):
        assert refusal(capsys, *rest, *words).startswith("the following arguments are required:")
    assert refusal(capsys, *NEEDED, "--datset=a").count("Unknown option") == 1


def test_every_option_has_a_help_text_and_is_declared_once():
    seen = [field for option_type in TYPES for field in dataclasses.fields(option_type)]
    assert len({field.name for field in seen}) == len(seen)
    assert all(field.metadata["help"].strip().endswith(".") for field in seen)


def test_what_is_not_given_is_left_to_the_checkpoint_or_the_configuration():
    model, _, _ = parse_options(TYPES, NEEDED)
    assert model.maskgit_overrides == {}
    model, _, _ = parse_options(
        TYPES, [*NEEDED, "--corruption_prob=0", "--use_simple_mdlm_loss_weight=false"]
    )
    assert model.maskgit_overrides == {"corruption_prob": 0.0, "use_simple_mdlm_loss_weight": False}
    help_texts = {f.name: f.metadata["help"] for f in dataclasses.fields(ModelArguments)}
    for name in set(own_fields()) & set(help_texts):
        assert repr(getattr(MaskGitConfig, name)) in help_texts[name]


def test_options_of_the_library_are_declared_by_the_library():
    """Default and help; those of the configuration are left to the checkpoint where not given."""
    own = {field.name: field for option_type in TYPES for field in dataclasses.fields(option_type)}
    stored = options_of(MaskGitConfig)
    assert set(options_of(Masking)) - set(stored) == {"choice"}
    assert own["choice"].default is Masking.choice
    for name, declared in {**options_of(Masking), **stored}.items():
        assert own[name].metadata["help"].startswith(declared.help)
        assert own[name].default is (None if name in stored else declared.default)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("--no_replace_prob=2", "`no_replace_prob` is a probability and must lie in [0, 1], got 2"),
        ("--self_cond_train_prob=-1", "`self_cond_train_prob` is a probability and must lie in"),
        ("--critic_loss_weight=-1", "`critic_loss_weight` must be at least 0, got -1.0"),
    ],
)
def test_ranges_of_the_library_hold_before_anything_is_loaded(word, sentence, capsys):
    assert sentence in refusal(capsys, *NEEDED, word)


def test_trackers_get_options_that_have_a_value():
    options = given_options(*parse_options(TYPES, NEEDED))
    assert options["learning_rate"] == TrainArguments(output_dir="run").learning_rate
    assert None not in options.values()
    assert "max_steps" not in options


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_recipes_are_read_without_fault(path):
    options = given_options(*parse_options(TYPES, [str(path)]))
    written = yaml.safe_load(path.read_text())
    assert set(written) <= set(options)
    assert path.read_text().startswith("#")  # says what it is for


@pytest.mark.parametrize("value", ["a", ["1"], True, {}, 1j], ids=repr)
def test_what_is_no_number_is_refused_by_every_option_of_the_training_that_is_one(value):
    """In Python, where no command line reads it."""
    kinds = {one.name: one.type for one in dataclasses.fields(TrainArguments)}
    numbers = [n for n, kind in kinds.items() if kind in (int, float, int | None, float | None)]
    assert {"learning_rate", "max_steps", "ema_decay", "layer_decay"} <= set(numbers)
    for name in numbers:
        with pytest.raises(ValueError, match=f"`{name}` must be (a number|an integer), got"):
            TrainArguments(**{"output_dir": "run", name: value})
