"""A stranger's folder full of traps: whoever loads, evaluates, samples or pushes runs none of it.

Each trap, once it runs, leaves a file behind. What a folder's own code may do is tried with the
switch that trusts it, to see that the traps work.
"""

import contextlib
import json
import pickle
import shutil

import pytest
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    pipeline,
)

import hf_maskgit
from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM, MaskGitGenerationConfig
from hf_maskgit.core import remote_code
from hf_maskgit.hub import push as hub
from hf_maskgit.hub.loading import load_generator, load_tokenizer
from hf_maskgit.hub.own_code import foreign_code
from hf_maskgit.hub.push import HubError, Push, stage
from hf_maskgit.hub.reloading import answers_in_a_fresh_process
from hf_maskgit.training.recipes import load_recipe
from scripts import evaluate, generate, push_to_hub
from tests.support.project import CARRIED, ROOT
from tests.support.tiny import tiny_encoder, tiny_model, word_tokenizer

PICKLES = (
    "pytorch_model.bin model.pt model.ckpt adapter_model.bin training_args.bin optimizer.bin "
    "optimizer.pt scheduler.bin scheduler.pt random_states_0.pkl rng_state.pth scaler.pt "
    "custom_checkpoint_0.pkl tokenizer.pkl vocab.pkl sampler.bin dl_state_dict.bin"
).split()
MODULES = (
    "own.py modeling_maskgit.py configuration_maskgit.py hf_maskgit.py sitecustomize.py json.py "
    "torch.py tokenization_own.py custom_generate/generate.py pipeline_infilling.py"
).split()
CLASSES = (
    "AutoConfig AutoModel AutoModelForMaskedLM AutoModelForCausalLM AutoTokenizer AutoProcessor "
    "AutoFeatureExtractor AutoImageProcessor AutoVideoProcessor"
).split()
TEMPLATE = (
    "{{ cycler.__init__.__globals__.os.system('touch TRAP') }}"
    "{{ ''.__class__.__mro__[1].__subclasses__() }}"
)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def add_traps(folder, sprung):
    """Put traps of every kind beside a model and its tokenizer; their files stay valid."""
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps({"x": Trap(sprung)}))
    code = f"open({str(sprung)!r}, 'w')\nclass Own: pass\n"
    for name in MODULES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    own = dict.fromkeys(CLASSES, "own.Own") | {"AutoTokenizer": ["own.Own", "own.Own"]}
    tasks = {
        task: {"impl": "own.Own", "pt": ["AutoModelForMaskedLM"], "type": "text"}
        for task in ("infilling", "text-generation", "fill-mask")
    }
    for name in ("config", "tokenizer_config", "processor_config", "preprocessor_config"):
        path = folder / f"{name}.json"
        values = json.loads(path.read_text()) if path.exists() else {}
        values |= {"auto_map": own}
        if name == "config":
            values |= {"custom_pipelines": tasks}
            if "text_config" in values:
                values["text_config"] |= {"auto_map": own, "custom_pipelines": tasks}
        path.write_text(json.dumps(values))
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("TRAP", str(sprung)))
    call = f"!!python/object/apply:os.system ['touch {sprung}']"
    (folder / "README.md").write_text(f"---\nlicense: {call}\n---\n# Verses\n")
    (folder / "training_options.yaml").write_text(f"output_dir: {call}\n")


@pytest.fixture
def sprung(tmp_path):
    """The file that a trap leaves behind."""
    return tmp_path / "sprung"


@pytest.fixture
def trapped(folder, tmp_path, sprung, monkeypatch):
    """A stranger's generator, where one stands who loads it."""
    trapped = shutil.copytree(folder, tmp_path / "trapped")
    add_traps(trapped, sprung)
    monkeypatch.chdir(trapped)
    return trapped


@pytest.fixture
def bare(trapped):
    """The same, but its README is a plain card, so that a push reads further."""
    (trapped / "README.md").unlink()
    return trapped


def test_the_traps_work(trapped, sprung):
    with pytest.raises(Exception, match=r"."):
        AutoTokenizer.from_pretrained(trapped, trust_remote_code=True)
    assert sprung.exists()
    sprung.unlink()
    for name in PICKLES:
        pickle.loads((trapped / name).read_bytes())
        assert sprung.exists(), name
        sprung.unlink()


LOADERS = {
    "ours": MaskGitForMaskedLM.from_pretrained,
    "masked": AutoModelForMaskedLM.from_pretrained,
    "causal": AutoModelForCausalLM.from_pretrained,
    "configuration": MaskGitConfig.from_pretrained,
    "auto configuration": AutoConfig.from_pretrained,
    "options": MaskGitGenerationConfig.from_pretrained,
    "tokenizer": load_tokenizer,
    "generator": load_generator,
}


@pytest.mark.parametrize("load", LOADERS)
def test_loading_springs_no_trap(trapped, sprung, load):
    assert LOADERS[load](str(trapped)) is not None
    assert LOADERS[load](".") is not None
    assert not sprung.exists()


@pytest.mark.parametrize("load", ["ours", "masked", "generator"])
def test_pickled_weights_are_not_read_in_the_place_of_others(trapped, sprung, load):
    (trapped / "model.safetensors").unlink()
    with pytest.raises((OSError, ValueError), match="no file named model.safetensors"):
        LOADERS[load](str(trapped))
    assert not sprung.exists()


def test_an_encoder_springs_no_trap(tmp_path, sprung, monkeypatch):
    encoder = tmp_path / "encoder"
    tiny_encoder().save_pretrained(encoder)
    word_tokenizer().save_pretrained(encoder)
    add_traps(encoder, sprung)
    monkeypatch.chdir(encoder)
    model = MaskGitForMaskedLM.from_encoder(str(encoder))
    model.save_pretrained(tmp_path / "saved")
    assert "auto_map" not in (tmp_path / "saved" / "config.json").read_text()
    (encoder / "model.safetensors").unlink()
    with pytest.raises(Exception, match=r"Weights only load failed|weights_only|Unsupported"):
        MaskGitForMaskedLM.from_encoder(str(encoder))
    assert not sprung.exists()


@pytest.mark.parametrize("task", ["infilling", "text-generation", "fill-mask"])
def test_pipelines_spring_no_trap(trapped, sprung, task, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "n")  # transformers asks whether to trust
    with contextlib.suppress(ValueError):  # it refuses pipelines of the folder's own
        pipeline(task, model=str(trapped))
    assert not sprung.exists()


@pytest.mark.wide
def test_scripts_spring_no_trap(trapped, sprung, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("w1 w2 w3\nw4 w5\n")
    generate.main(["--model", ".", "--text", "w1 [MASK]"])
    evaluate.main(["--model", ".", "--dataset", str(tmp_path / "texts.txt"), "--num_samples=4"])
    assert capsys.readouterr().out
    with pytest.raises(ValueError, match="could not determine a constructor"):
        load_recipe("training_options.yaml")
    assert not sprung.exists()


def in_this_process(folder, *, with_package):
    """The answers of a fresh process, without starting one."""
    model, tokenizer = load_generator(folder)
    return hub.answers_of(model, tokenizer)


@pytest.mark.wide
@pytest.mark.parametrize("with_code", [False, True])
def test_a_push_springs_no_trap_and_sends_none(bare, sprung, tmp_path, with_code, monkeypatch):
    monkeypatch.setattr(hub, "answers_in_a_fresh_process", in_this_process)
    staged = tmp_path / "staged"
    staged.mkdir()
    files = stage(Push(folder=bare, repo_id="me/verses", with_code=with_code), staged)
    assert not sprung.exists()
    code = {path.stem for path in files if path.suffix == ".py"}
    assert code <= CARRIED
    assert bool(code) == with_code
    core = ROOT / "hf_maskgit" / "core"
    assert all(p.read_bytes() == (core / p.name).read_bytes() for p in staged.glob("*.py"))
    assert not any(path.name in PICKLES for path in files)
    assert foreign_code(staged, with_code) == []
    named = [path.name for path in files if "own.Own" in path.read_text(errors="ignore")]
    assert named == []
    assert ("auto_map" in (staged / "config.json").read_text()) == with_code


@pytest.mark.wide
def test_a_push_says_what_it_left_out(bare, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hub, "answers_in_a_fresh_process", in_this_process)
    (tmp_path / "staged").mkdir()
    stage(Push(folder=bare, repo_id="me/verses"), tmp_path / "staged")
    assert "names code of its own (`auto_map`), which was not run and is not sent" in caplog.text


def test_a_card_that_wants_to_run_something_is_not_read(trapped, sprung):
    with pytest.raises(HubError, match="README.md' cannot be read: .*could not determine a const"):
        push_to_hub.main([".", "--repo_id", "me/verses", "--dry_run"])
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("own.py", "x = 1", "own.py is no file of this library."),
        ("losses.py", "x = 1", "losses.py is no file of this library."),
        ("sub/losses.py", None, "sub/losses.py is no file of this library."),
        ("pytorch_model.bin", "x", "pytorch_model.bin is no file of this library."),
        ("a.json", '[{"b": {"auto_map": {"A": "losses.B"}}}]', "a.json names code to run (auto_m"),
        (
            "config.json",
            '{"auto_map": {"A": "own.B"}}',
            "config.json names code to run (auto_map).",
        ),
        ("config.json", '{"auto_map": {"A": "x/y--losses.B"}}', "config.json names code to run"),
        ("config.json", '{"custom_pipelines": {"t": {"impl": "own.B"}}}', "(custom_pipelines)."),
    ],
)
def test_code_of_others_is_found(tmp_path, name, content, finding):
    tiny_model().save_pretrained(tmp_path, with_code=True)
    assert foreign_code(tmp_path, True) == []
    assert len(foreign_code(tmp_path, False)) == len(list(tmp_path.glob("*.py"))) + 2
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is None:
        shutil.copy(tmp_path / path.name, path)
    else:
        path.write_text(content)
    (found,) = foreign_code(tmp_path, True)
    assert finding in found


@pytest.mark.wide
def test_code_that_got_into_a_staged_folder_stops_the_push(folder, tmp_path, monkeypatch):
    def saved(self, path, *args, **kwargs):
        (path / "own.py").write_text("x = 1")

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", saved)
    with pytest.raises(HubError, match="carries code that is not this library's. own.py is no"):
        stage(Push(folder=folder, repo_id="me/verses"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("with_code", [False, True])
def test_a_fresh_process_springs_no_trap(bare, sprung, tmp_path, with_code):
    staged = tmp_path / "staged"
    staged.mkdir()
    stage(Push(folder=bare, repo_id="me/verses", with_code=with_code), staged)
    assert not sprung.exists()
    with pytest.raises(RuntimeError, match="does not load in a fresh process"):
        answers_in_a_fresh_process(bare / "custom_generate", with_package=True)
    answers_in_a_fresh_process(bare, with_package=True)
    assert not sprung.exists()


def test_the_package_is_the_one_of_this_checkout():
    assert hf_maskgit.__file__ == str(ROOT / "hf_maskgit" / "__init__.py")
    assert remote_code.__file__ == str(ROOT / "hf_maskgit" / "core" / "remote_code.py")
