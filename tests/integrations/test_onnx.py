"""ONNX: a graph has the model's logits, and the sampler over it writes the model's texts."""

import sys
from pathlib import Path

import pytest
import torch

from hf_maskgit.core.generation_config_maskgit import MaskGitGenerationConfig
from hf_maskgit.integrations import onnx
from hf_maskgit.integrations.onnx import OnnxGenerator, check_exportable, export_onnx
from scripts import export_onnx as script
from tests.support.tiny import ENCODERS, TableModel, tiny_config, tiny_model, tokenizer_for

needs_onnx = pytest.mark.skipif(
    any(
        __import__("importlib.util", fromlist=["util"]).find_spec(name) is None
        for name in ("onnxscript", "onnxruntime")
    ),
    reason="pip install 'hf_maskgit[onnx]'",
)
OPTIONS = [
    {"max_new_tokens": 9, "do_sample": False},
    {"max_new_tokens": 9, "do_sample": False, "steps": 4, "order": "margin"},
    {"max_new_tokens": 12, "do_sample": False, "block_length": 4, "steps": 6, "use_cache": False},
    {"max_new_tokens": 9, "seed": 5, "anneal_temperature": False},
]


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
def test_the_graph_has_the_models_logits_and_writes_its_texts(kind, tmp_path):
    model, tokenizer = tiny_model(kind), tokenizer_for(kind)
    assert export_onnx(model, tokenizer, tmp_path) <= 1e-4
    graph = OnnxGenerator.from_pretrained(tmp_path)
    assert graph.max_positions == model.max_positions
    words = sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))
    texts = [" ".join(words[:n]) for n in (1, 4, 9)]
    rows = tokenizer(texts, padding=True, return_tensors="pt")
    for options in OPTIONS:
        assert torch.equal(graph.generate(**rows, **options), model.generate(**rows, **options))
    mask = tokenizer.mask_token
    filled = tokenizer(f"{words[0]} {mask} {words[1]} {mask}", return_tensors="pt")
    expected = model.generate(**filled, do_sample=False)
    assert torch.equal(graph.generate(**filled, do_sample=False), expected)


@needs_onnx
@pytest.mark.slow
def test_the_script_exports_and_compares(saved, tmp_path, capsys):
    words = ["--model", saved, "--output_dir", str(tmp_path / "graph")]
    script.main([*words, "--text", "w1 w2", "[MASK] w3", "--max_new_tokens", "4"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert "model.onnx" in first
    assert "of the model's." in first
    assert lines[0].startswith("w1 w2 ")
    assert len(lines) == 2


@needs_onnx
@pytest.mark.slow
def test_a_model_that_writes_in_blocks_is_compared_without_its_cache(tmp_path, capsys):
    """With it, which is on by default there, it writes other texts than its graph."""
    model, texts = tiny_model(), ["w1 w2", "w3", "w4 w5 w6"]
    model.generation_config.block_length = 4
    model.save_pretrained(tmp_path / "model")
    tokenizer_for("bert").save_pretrained(tmp_path / "model")
    words = ["--model", str(tmp_path / "model"), "--output_dir", str(tmp_path / "graph")]
    script.main([*words, "--max_new_tokens", "12", "--text", *texts])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_folder_of_the_model_is_not_written_over(saved, capsys):
    with pytest.raises(SystemExit):
        script.main(["--model", saved, "--output_dir", f"{saved}/../{Path(saved).name}"])
    assert "is the folder of the model itself" in capsys.readouterr().err


def test_the_sampler_over_a_session_asks_for_what_it_knows():
    """A session that is a table: the loop is that of `generate` on the table itself."""
    config = tiny_config()
    table = TableModel(config)

    class Session:
        def get_inputs(self):
            return [type("Input", (), {"name": n})() for n in ("input_ids", "attention_mask")]

        def get_modelmeta(self):
            return type("Meta", (), {"custom_metadata_map": {"max_positions": "64"}})()

        def run(self, names, arrays):
            assert names == ["logits"]
            ids, real = (torch.from_numpy(arrays[n]) for n in ("input_ids", "attention_mask"))
            everywhere = torch.ones_like(ids, dtype=torch.bool)
            logits = table(ids, real, everywhere).logits
            return [logits.view(*ids.shape, -1).numpy()]

    graph = OnnxGenerator(Session(), config, table.generation_config)
    assert graph.max_positions == 64
    rows = tokenizer_for("bert")(["w1", "w2 w3 w4"], padding=True, return_tensors="pt")
    del rows["token_type_ids"]
    for options in OPTIONS:
        assert torch.equal(graph.generate(**rows, **options), table.generate(**rows, **options))
    with pytest.raises(ValueError, match="critic"):
        graph.generate(**rows, order="critic")


def test_models_that_are_no_function_of_tokens_are_refused():
    with pytest.raises(ValueError, match="self-conditioning, so that a pass reads the states of"):
        check_exportable(tiny_model(self_cond=True))
    with pytest.raises(ValueError, match='in bfloat16; load it with dtype="float32"'):
        check_exportable(tiny_model().bfloat16())
    model = tiny_model()
    model.denoiser.config.model_type = "fnet"
    with pytest.raises(ValueError, match="type 'fnet' confuses padding with text"):
        check_exportable(model)


@pytest.mark.parametrize("stored", [{"order": "critic"}, {"remask": "p2", "p2_planner": "critic"}])
def test_stored_options_that_ask_a_part_left_out_are_refused_before_work(stored, tmp_path):
    """What was exported would refuse its first call, with these options and no others."""
    model = tiny_model(token_critic="self")
    check_exportable(model)
    model.generation_config = MaskGitGenerationConfig(**stored)
    with pytest.raises(ValueError, match="which ask its token critic, and a graph has none. Store"):
        export_onnx(model, tokenizer_for("bert"), tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    if "onnxruntime" not in sys.modules:
        monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    with pytest.raises(ValueError, match=r"There is no graph '.*model.onnx'; make one with"):
        OnnxGenerator.from_pretrained(tmp_path)
    for name in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"ONNX needs 'onnxruntime', which .*\[onnx\]"):
        OnnxGenerator.from_pretrained(tmp_path)
    with pytest.raises(ImportError, match=r"ONNX needs 'onnxruntime'"):
        export_onnx(tiny_model(), tokenizer_for("bert"), tmp_path)


@needs_onnx
@pytest.mark.slow
def test_a_graph_that_differs_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "greatest_difference", lambda *_: 0.01)
    with pytest.raises(
        ValueError, match=r"differ from the model's by up to 0.01, more than 0.0001"
    ):
        export_onnx(tiny_model(), tokenizer_for("bert"), tmp_path)
    assert not (tmp_path / "model.onnx").exists()
