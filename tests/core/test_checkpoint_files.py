"""Files of a checkpoint: absent means the defaults, unreadable and half are refused by name."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM, MaskGitGenerationConfig
from hf_maskgit.core.checkpoint_files import broken_weights
from tests.support.tiny import tiny_model

OPTIONS = "generation_config.json"
LOADERS = pytest.mark.parametrize("load", [MaskGitForMaskedLM, AutoModelForMaskedLM])


@pytest.fixture
def copy(folder, tmp_path):
    """A saved generator to be damaged."""
    return shutil.copytree(folder, tmp_path / "copy")


def without(folder, *lost):
    """Take tensors away from a checkpoint."""
    path = folder / "model.safetensors"
    kept = {name: t for name, t in load_file(path).items() if not name.startswith(lost)}
    save_file(kept, path, metadata={"format": "pt"})


BROKEN = {
    "empty": (b"", "Expecting value"),
    "a byte order mark": (b'\xef\xbb\xbf{"steps": 3}', "Unexpected UTF-8 BOM"),
    "a trailing comma": (b'{"steps": 3,}', "Illegal trailing comma|Expecting property name"),
    "cut off": (b'{"steps": 3, "sche', "Unterminated string"),
    "latin-1": ('{"schedule": "é"}'.encode("latin-1"), "'utf-8' codec can't decode"),
    "a list": (b"[3]", "must hold one JSON object, .* and holds a list"),
    "a text": (b'"steps"', "and holds a text"),
    "a number": (b"3", "and holds a number"),
    "null": (b"null", "and holds null"),
    "a truth value": (b"true", "and holds a truth value"),
    "a name twice": (b'{"steps": 3, "steps": 5}', "it names 'steps' twice"),
    "no end of depth": (b"[" * 100_000, "recursion"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_an_unreadable_file_of_options_is_not_taken_for_absent(copy, damage):
    content, reason = BROKEN[damage]
    (copy / OPTIONS).write_bytes(content)
    for load in (MaskGitForMaskedLM, MaskGitGenerationConfig):
        with pytest.raises(ValueError, match=rf"copy/{OPTIONS}' .*({reason})"):
            load.from_pretrained(copy)


@LOADERS
def test_an_absent_file_of_options_gives_the_defaults(copy, load):
    (copy / OPTIONS).unlink()
    assert load.from_pretrained(copy).generation_config.steps == 18


def test_what_stands_in_the_place_of_a_file_is_not_absent_either(copy):
    (copy / OPTIONS).unlink()
    (copy / OPTIONS).symlink_to("nowhere")
    with pytest.raises(ValueError, match=f"{OPTIONS}' is no file that can be read"):
        MaskGitForMaskedLM.from_pretrained(copy)
    (copy / OPTIONS).unlink()
    (copy / OPTIONS).mkdir()
    with pytest.raises(ValueError, match=f"{OPTIONS}' is no file that can be read"):
        MaskGitForMaskedLM.from_pretrained(copy)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stepz": 3}, "Masked decoding has no option 'stepz'"),
        ({"steps": 0}, "`steps` must be an integer"),
        ({"auto_map": {"AutoConfig": "a.B"}}, "Masked decoding has no option 'auto_map'"),
    ],
)
def test_stored_options_that_cannot_be_used_name_their_file(copy, values, said):
    (copy / OPTIONS).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"decoding in '{OPTIONS}' of '.*/copy' cannot.*{said}"):
        MaskGitForMaskedLM.from_pretrained(copy)


@pytest.mark.parametrize("damage", BROKEN)
def test_an_unreadable_configuration_is_named(copy, damage):
    content, reason = BROKEN[damage]
    (copy / "config.json").write_bytes(content)
    for load in (MaskGitForMaskedLM, MaskGitConfig):
        with pytest.raises(ValueError, match=rf"copy/config.json' .*({reason})"):
            load.from_pretrained(copy)


def changed_config(folder, **changes):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for name, value in changes.items():
        part, _, name = name.rpartition("__")
        (values[part] if part else values)[name] = value
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "changes",
    [
        {"text_config__hidden_size": "wide"},
        {"text_config__num_attention_heads": 0},
        {"text_config__hidden_size": 33},
        {"text_config__vocab_size": 39},
        {"text_config__vocab_size": -1},
        {"text_config__model_type": "nothing"},
        {"text_config": [1]},
        {"mask_token_id": "4"},
        {"special_token_ids": 5},
        {"prefix_ids": ["a"]},
        {"corruption_prob": "often"},
        {"self_cond_train_prob": None},
        {"schedule": ["linear"]},
        {"dtype": "float33"},
    ],
    ids=str,
)
@LOADERS
def test_a_configuration_of_which_no_model_is_made_is_refused_in_a_sentence(copy, changes, load):
    changed_config(copy, **changes)
    with pytest.raises(ValueError, match=r"must|cannot be|Unknown|`") as refused:
        load.from_pretrained(copy)
    assert "Traceback" not in str(refused.value)


@LOADERS
def test_half_a_model_is_refused_unless_told(copy, load):
    without(copy, "denoiser.bert.encoder.layer.1.")
    said = (
        "copy' lacks 16 of the model's tensors: denoiser.bert.encoder.layer.1.attention.*, .* and "
        "11 more. They would be drawn at random. .* pass allow_missing_weights=True"
    )
    with pytest.raises(ValueError, match=said):
        load.from_pretrained(copy)
    model, info = load.from_pretrained(copy, allow_missing_weights=True, output_loading_info=True)
    assert len(info["missing_keys"]) == 16
    assert type(model) is MaskGitForMaskedLM


def test_weights_that_are_given_are_whole_too(folder):
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if name.endswith("word_embeddings.weight"))
    del weights[lost]
    with pytest.raises(ValueError, match=f"The weights given lack 2 of the model's .*: {lost}, "):
        MaskGitForMaskedLM.from_pretrained(None, config=tiny_model().config, state_dict=weights)


@pytest.mark.parametrize(("num_lost", "others"), [(4, ""), (5, ""), (6, " and 1 more")])
def test_the_first_five_of_what_is_missing_are_named_and_the_others_counted(
    folder, num_lost, others
):
    weights = load_file(folder / "model.safetensors")
    lost = sorted(name for name in weights if ".layer.1." in name)[:num_lost]
    kept = {name: tensor for name, tensor in weights.items() if name not in lost}
    said = f"lack {num_lost} of the model's tensors: {', '.join(lost[:5])}{others}. They"
    with pytest.raises(ValueError, match=re.escape(said)):
        MaskGitForMaskedLM.from_pretrained(None, config=tiny_model().config, state_dict=kept)


def test_a_part_that_is_asked_for_is_new_and_one_that_was_stored_is_missing(copy, tmp_path):
    model, info = MaskGitForMaskedLM.from_pretrained(
        copy, self_cond=True, token_critic="self", output_loading_info=True
    )
    assert {key.split(".")[0] for key in info["missing_keys"]} == {
        "self_conditioning",
        "critic_head",
    }
    model.save_pretrained(tmp_path / "whole")
    assert MaskGitForMaskedLM.from_pretrained(tmp_path / "whole").has_token_critic
    without(tmp_path / "whole", "critic_head.")
    with pytest.raises(ValueError, match="lacks 2 of .*: critic_head.bias, critic_head.weight."):
        MaskGitForMaskedLM.from_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match="lacks 2 of .*: critic_head.bias, critic_head.weight."):
        MaskGitForMaskedLM.from_pretrained(tmp_path / "whole", token_critic="self")


@LOADERS
@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (0, "is cut off or no safetensors file: it ends after 0 bytes"),
        (100, "is cut off or no safetensors file: it ends after 100 bytes"),
        (-1, "is cut off or damaged: it has .* bytes and its header tells of"),
    ],
)
def test_weights_that_are_cut_off_are_named(copy, load, kept, said):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"copy/model.safetensors' {said}"):
        load.from_pretrained(copy)


def test_weights_whose_header_is_none(tmp_path):
    for header in (b"{]", b"[]", b'{"a": {"data_offsets": 3}}'):
        (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        assert re.search("a.safetensors' is no safetensors file", broken_weights(tmp_path))
    save_file({}, tmp_path / "a.safetensors")
    assert broken_weights(tmp_path) is None
    save_file({"x": torch.ones(3), "y": torch.ones(0)}, tmp_path / "a.safetensors")
    assert broken_weights(tmp_path) is None


def test_weights_in_the_pickled_format_are_not_read(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(OSError, match="no file named model.safetensors"):
        MaskGitForMaskedLM.from_pretrained(copy)


def test_options_that_nobody_knows_stay_a_type_error(folder):
    with pytest.raises(TypeError, match="stepz"):
        MaskGitForMaskedLM.from_pretrained(folder, stepz=3)


def test_a_checkpoint_that_is_not_there_stays_an_os_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        MaskGitForMaskedLM.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_an_option_of_a_newer_release_is_refused_with_what_to_do(file, tmp_path):
    """Once, though the file is read within what reads the checkpoint; a call's is no file's."""
    tiny_model().save_pretrained(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 3}))
    with pytest.raises(ValueError, match="no option 'later'") as refused:
        MaskGitForMaskedLM.from_pretrained(tmp_path)
    said = "Perhaps a newer release of hf_maskgit wrote the file: pip install --upgrade hf_maskgit"
    assert str(refused.value).count(said) == 1
    with pytest.raises(ValueError, match="no option 'later'") as refused:
        MaskGitGenerationConfig(later=3)
    assert said not in str(refused.value)
