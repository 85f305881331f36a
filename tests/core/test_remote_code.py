"""Checkpoints that carry their code, loaded where this package cannot be imported."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
    logging,
)
from transformers import pipeline as any_pipeline
from transformers.utils.hub import PushToHubMixin

from hf_maskgit import (
    InfillingPipeline,
    MaskGitConfig,
    MaskGitForMaskedLM,
    MaskGitTextGenerationPipeline,
)
from tests.support.project import CARRIED, PACKAGE, imports_of
from tests.support.tiny import ENCODERS, bert_config, tiny_config, tiny_model, tokenizer_for

pipeline = functools.partial(any_pipeline, device="cpu")  # also where there is a GPU

# What a stranger does with the checkpoint; it knows transformers alone. Prints what came out.
STRANGER = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_maskgit":
            raise ImportError("this process has no hf_maskgit")

sys.meta_path.insert(0, Blocker())

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers import pipeline

folder, out = sys.argv[1:]
told = json.load(open(f"{out}/told.json"))
trust = {"trust_remote_code": True}
found = {}
try:
    AutoConfig.from_pretrained(folder, trust_remote_code=False)
except ValueError as error:
    found["without_trust"] = str(error)
found["config"] = type(AutoConfig.from_pretrained(folder, **trust)).__name__
model = AutoModelForMaskedLM.from_pretrained(folder, **trust)
found["modules"] = sorted({type(x).__module__.split(".")[0] for x in (model, model.config)})
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = torch.tensor(told["ids"])
logits = {"masked": model(input_ids=ids).logits}
causal = AutoModelForCausalLM.from_pretrained(folder, **trust)
logits["causal"] = causal(input_ids=ids).logits
found["options"] = model.generation_config.to_diff_dict()
found["samples"] = model.generate(ids, max_new_tokens=5, seed=3).tolist()
found["cached"] = model.generate(ids, max_new_tokens=6, use_cache=True, steps=6, seed=3).tolist()
for task, (text, options) in told["pipelines"].items():
    pipe = pipeline(task, model=folder, device="cpu", **trust)
    found[task] = [type(pipe).__name__, pipe(text, **options)]
    json.loads(pipe.model.config.to_json_string())
    if task == "infilling":
        pipe.save_pretrained(f"{out}/from_pipeline")
model.save_pretrained(f"{out}/again")
tokenizer.save_pretrained(f"{out}/again")
model.save_pretrained(f"{out}/bare", with_code=False)
model.save_pretrained(f"{out}/third")
for name in ("again", "from_pipeline", "third"):
    again = AutoModelForMaskedLM.from_pretrained(f"{out}/{name}", **trust)
    logits[name] = again(input_ids=ids).logits
fill = pipeline("infilling", model=f"{out}/again", device="cpu", **trust)
text, options = told["pipelines"]["infilling"]
found["infilling again"] = [type(fill).__name__, fill(text, **options)]
found["imported"] = sorted(name for name in sys.modules if name.split(".")[0] == "hf_maskgit")
save_file({k: v.contiguous() for k, v in logits.items()}, f"{out}/logits.safetensors")
json.dump(found, open(f"{out}/found.json", "w"))
"""


def files_of(folder):
    return {path.stem for path in Path(folder).glob("*.py")}


def missing_files(folder):
    """Modules that the code of a checkpoint asks for and the checkpoint lacks."""
    config = json.loads(Path(folder, "config.json").read_text())
    asked = set(config["auto_map"].values())
    asked |= {pipe["impl"] for pipe in config["custom_pipelines"].values()}
    asked = {reference.split(".")[0] for reference in asked}
    for path in Path(folder).glob("*.py"):
        asked |= {imported.module for imported in imports_of(path) if imported.dots}
    return asked - files_of(folder)


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """A checkpoint with code and the model that it holds."""
    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("coded")
    model = tiny_model("bert")
    model.save_pretrained(folder, with_code=True)
    tokenizer_for("bert").save_pretrained(folder)
    return folder, model


def config_json(folder):
    return json.loads(Path(folder, "config.json").read_text())


def run_stranger(folder, out, model, tokenizer, text):
    """Let a process without the package use a checkpoint; return what it found and its logits."""
    mask = tokenizer.mask_token
    told = {
        "ids": tokenizer(text)["input_ids"],
        "pipelines": {
            "infilling": [text + "{blank:2-5}" + mask, {"seed": 1, "num_return_sequences": 2}],
            "text-generation": [text, {"seed": 1, "max_new_tokens": 6}],
            "fill-mask": [mask + text, {"top_k": 3}],
        },
    }
    told["ids"] = [told["ids"]]
    out.mkdir()
    (out / "told.json").write_text(json.dumps(told))
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_MODULES_CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(folder), str(out)],
        cwd=out,
        env={**clean, "HF_MODULES_CACHE": str(out / "modules"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "found.json").read_text())
    return told, found, load_file(out / "logits.safetensors")


def check_stranger(tmp_path, kind, **options):
    text = "MKLV" if kind == "esm" else "w1 w2 w3"
    model, tokenizer = tiny_model(kind, **options), tokenizer_for(kind)
    if model.self_conditioning is not None:  # it starts without effect
        torch.nn.init.normal_(model.self_conditioning.weight)
    if model.has_token_critic:
        model.generation_config.order = "critic"
    folder, out = tmp_path / "checkpoint", tmp_path / "out"
    model.save_pretrained(folder, with_code=True)
    tokenizer.save_pretrained(folder)
    told, found, logits = run_stranger(folder, out, model, tokenizer, text)
    ids = torch.tensor(told["ids"])

    assert found["imported"] == []
    assert found["modules"] == ["transformers_modules"]
    assert "trust_remote_code=True" in found["without_trust"]
    assert found["config"] == "MaskGitConfig"
    assert found["options"] == model.generation_config.to_diff_dict()
    expected = model(input_ids=ids).logits
    assert set(logits) == {"masked", "causal", "again", "from_pipeline", "third"}
    for got in logits.values():
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert found["samples"] == model.generate(ids, max_new_tokens=5, seed=3).tolist()
    cached = model.generate(ids, max_new_tokens=6, use_cache=True, steps=6, seed=3)
    assert found["cached"] == cached.tolist()
    classes = {
        "infilling": "InfillingPipeline",
        "text-generation": "MaskGitTextGenerationPipeline",
        "fill-mask": "MaskGitFillMaskPipeline",
    }
    for task, (text, options) in told["pipelines"].items():
        here = pipeline(task, model=model, tokenizer=tokenizer_for(kind))(text, **options)
        there = found[task]
        assert there[0] == classes[task]
        if task == "fill-mask":
            assert [o["token"] for o in there[1]] == [o["token"] for o in here]
        else:
            assert there[1] == here
    assert found["infilling again"] == found["infilling"]

    for name in ("again", "from_pipeline", "third"):
        assert files_of(out / name) == CARRIED
        assert missing_files(out / name) == set()
    assert config_json(out / "again")["custom_pipelines"] == config_json(folder)["custom_pipelines"]
    bare = out / "bare"
    assert files_of(bare) == set()
    assert not {"auto_map", "custom_pipelines"} & set(config_json(bare))
    reloaded = MaskGitForMaskedLM.from_pretrained(bare)
    torch.testing.assert_close(reloaded(input_ids=ids).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.wide
def test_a_checkpoint_with_code_works_without_the_package(tmp_path):
    check_stranger(tmp_path, "bert")


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(ENCODERS) - {"bert"}))
def test_so_do_those_of_other_encoders(tmp_path, kind):
    check_stranger(tmp_path, kind)


@pytest.mark.slow
@pytest.mark.parametrize("critic", ["self", "separate"])
def test_so_do_those_with_self_conditioning_and_a_critic(tmp_path, critic):
    options = {"critic_config": bert_config(num_hidden_layers=1)} if critic == "separate" else {}
    check_stranger(tmp_path, "bert", self_cond=True, token_critic=critic, **options)


@pytest.mark.wide
def test_a_checkpoint_carries_the_modules_it_needs_and_no_other(coded):
    folder, _ = coded
    assert files_of(folder) == CARRIED
    for name in CARRIED:
        own = PACKAGE / "core" / f"{name}.py"
        assert Path(folder, own.name).read_bytes() == own.read_bytes()
    assert missing_files(folder) == set()


@pytest.mark.parametrize("name", sorted(CARRIED))
def test_a_module_left_behind_is_found(coded, tmp_path, name):
    folder = tmp_path / "incomplete"
    shutil.copytree(coded[0], folder)
    (folder / f"{name}.py").unlink()
    assert missing_files(folder) == {name}


def test_the_config_names_what_the_auto_classes_load(coded):
    config = config_json(coded[0])
    ours = "modeling_maskgit.MaskGitForMaskedLM"
    assert config["auto_map"] == {
        "AutoConfig": "configuration_maskgit.MaskGitConfig",
        "AutoModelForMaskedLM": ours,
        "AutoModelForCausalLM": ours,
    }
    assert {task: pipe["impl"] for task, pipe in config["custom_pipelines"].items()} == {
        "infilling": "pipeline_infilling.InfillingPipeline",
        "text-generation": "pipeline_text_generation.MaskGitTextGenerationPipeline",
        "fill-mask": "pipeline_fill_mask.MaskGitFillMaskPipeline",
    }


def test_saving_with_code_leaves_nothing_behind(tmp_path):
    model = tiny_model("bert")
    before = dict(vars(model.config))
    model.save_pretrained(tmp_path / "coded", with_code=True)
    assert "_auto_class" not in vars(MaskGitForMaskedLM)
    assert "_auto_class" not in vars(MaskGitConfig)
    assert set(vars(model.config)) - set(before) <= {"architectures", "dtype"}
    model.save_pretrained(tmp_path / "bare")
    model.config.save_pretrained(tmp_path / "config")
    for name in ("bare", "config"):
        assert files_of(tmp_path / name) == set()
        assert not {"auto_map", "custom_pipelines"} & set(config_json(tmp_path / name))


def test_a_save_that_fails_leaves_nothing_behind_either(tmp_path, monkeypatch):
    model = tiny_model("bert")

    def fail(*args, **kwargs):
        raise OSError("no space")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space"):
        model.save_pretrained(tmp_path, with_code=True)
    assert "_auto_class" not in vars(MaskGitForMaskedLM)
    assert not {"auto_map", "custom_pipelines"} & set(vars(model.config))


@pytest.mark.wide
@pytest.mark.parametrize("auto_class", [AutoModelForMaskedLM, AutoModelForCausalLM])
def test_with_the_package_its_own_classes_load(coded, auto_class, tmp_path):
    folder, model = coded
    for trust in (None, True):
        loaded = auto_class.from_pretrained(folder, trust_remote_code=trust)
        assert type(loaded) is MaskGitForMaskedLM
        assert type(AutoConfig.from_pretrained(folder, trust_remote_code=trust)) is MaskGitConfig
    ids = torch.tensor([[2, 6, 4, 7, 3]])
    torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    # What it was loaded from carried code; what it is saved to carries none unless asked for.
    loaded.save_pretrained(tmp_path / "bare")
    assert files_of(tmp_path / "bare") == set()
    assert not {"auto_map", "custom_pipelines"} & set(config_json(tmp_path / "bare"))
    assert type(
        pipeline("infilling", model=str(tmp_path / "bare"), tokenizer=tokenizer_for("bert"))
    )
    loaded.save_pretrained(tmp_path / "coded", with_code=True)
    assert files_of(tmp_path / "coded") == CARRIED


@pytest.mark.wide
def test_a_pipeline_is_saved_as_its_model_is(coded, tmp_path):
    fill = pipeline("infilling", model=coded[1], tokenizer=tokenizer_for("bert"))
    write = pipeline("text-generation", model=coded[1], tokenizer=tokenizer_for("bert"))
    for pipe in (fill, write):
        for with_code in (None, True):
            folder = tmp_path / f"{pipe.task}-{with_code}"
            pipe.save_pretrained(folder, with_code=with_code)
            assert files_of(folder) == (CARRIED if with_code else set())
            assert ("custom_pipelines" in config_json(folder)) is bool(with_code)
            assert (folder / "tokenizer.json").exists()
    again = pipeline("infilling", model=str(tmp_path / "infilling-None"))
    assert type(again) is InfillingPipeline
    assert again("w1 {blank:3}", seed=0) == fill("w1 {blank:3}", seed=0)


class OwnModel(MaskGitForMaskedLM):
    """A user's subclass, in a module that no checkpoint carries."""


def test_a_subclass_is_saved_without_code_only(tmp_path, monkeypatch):
    model = OwnModel(tiny_config("bert"))
    with pytest.raises(ValueError, match="OwnModel is defined in .* Save it without code"):
        model.save_pretrained(tmp_path / "coded", with_code=True)
    assert not (tmp_path / "coded").exists()
    monkeypatch.setattr(MaskGitForMaskedLM, "_auto_class", "AutoModelForMaskedLM")
    for with_code in (None, False):  # also where the class it derives from came with its code
        model.save_pretrained(tmp_path / "bare", with_code=with_code)
        assert files_of(tmp_path / "bare") == set()


@pytest.mark.parametrize("task", ["infilling", "text-generation"])
def test_with_the_package_its_pipelines_want_trust_or_their_class(coded, task):
    """The config names pipelines of the checkpoint; transformers takes these, if it may."""
    folder = str(coded[0])
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        pipeline(task, model=folder)
    kind = {
        "infilling": InfillingPipeline,
        "text-generation": MaskGitTextGenerationPipeline,
    }[task]
    pipe = pipeline(task, model=folder, pipeline_class=kind)
    assert type(pipe) is kind
    assert type(pipe.model) is MaskGitForMaskedLM


@pytest.mark.parametrize("with_code", [None, False, True])
def test_a_push_passes_the_choice_on(monkeypatch, tmp_path, with_code):
    """What transformers hands to the Hub is what it saved to its temporary folder."""
    model, seen = tiny_model("bert"), []

    def upload(self, repo_id, **kwargs):
        self.save_pretrained(tmp_path, max_shard_size=kwargs["max_shard_size"])
        seen.append((repo_id, kwargs, files_of(tmp_path)))
        return "the commit"

    monkeypatch.setattr(PushToHubMixin, "push_to_hub", upload)
    options = {"max_shard_size": "1GB", "private": True}
    assert model.push_to_hub("me/verses", with_code=with_code, **options) == "the commit"
    ((repo_id, kwargs, files),) = seen
    assert (repo_id, kwargs) == ("me/verses", options)
    assert files == (CARRIED if with_code else set())
    model.save_pretrained(tmp_path / "later")
    assert files_of(tmp_path / "later") == set()
