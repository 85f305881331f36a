"""Damage: whatever happens to a file of a checkpoint is found, and nothing in it is executed."""

import json
import os
import pickle
import shutil

import pytest

from hf_maskgit.training.checkpoints import fault_of, find_checkpoint
from tests.support.tiny_training import loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")

FILES = (
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "progress.json",
    "random_states_0.safetensors",
)
OLD_NAMES = (
    "custom_checkpoint_0.pkl",
    "optimizer.bin",
    "random_states_0.pkl",
    "sampler.bin",
    "scaler.pt",
    "scheduler.bin",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint of a real run."""
    from accelerate.state import AcceleratorState, GradientState

    folder = tmp_path_factory.mktemp("runs") / "run"
    loop_of(folder, max_steps=1).run()
    GradientState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder / "checkpoint-1"


@pytest.fixture
def checkpoint(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoint-1")


def flip_a_bit(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = {
    "absent": None,
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)),
    "longer": lambda data: data + b" ",
    "a bit flipped": flip_a_bit,
}


def test_a_checkpoint_holds_safetensors_and_json_alone(checkpoint):
    assert fault_of(checkpoint) is None
    assert tuple(sorted(path.name for path in checkpoint.iterdir())) == FILES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_to_every_file_is_found_and_named(checkpoint, name, damage):
    path = checkpoint / name
    change = DAMAGES[damage]
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    if (name, damage) == ("manifest.json", "longer"):
        assert fault_of(checkpoint) is None  # a space behind an object is no damage
        return
    fault = fault_of(checkpoint)
    # a bit within the manifest changes what it says of one of the others
    assert "its file" in fault or name in fault or "were written" in fault or "no run" in fault
    with pytest.raises(ValueError, match=r"checkpoint-1' is damaged: .* Resume from another"):
        find_checkpoint(str(checkpoint), checkpoint.parent)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "its file 'manifest.json' holds list"),
        ("[" * 100_000, "its file 'manifest.json' cannot be read"),
        ('{"format": 2, "step": 1, "files": {}}', "is of format 2, and this release reads format"),
        ('{"format": 1, "step": 1, "files": []}', "is of format 1"),
        ('{"format": 1, "step": 2, "files": {}}', "was written after update 2, not 1 as its name"),
        ('{"format": 1, "step": 1, "files": {}}', "holds 'model.safetensors', which no run wrote"),
        ('{"format": 1, "step": 1, "files": {"../x.json": {}}}', "which no run wrote"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(checkpoint, content, sentence):
    (checkpoint / "manifest.json").write_text(content)
    assert sentence in fault_of(checkpoint)


def test_a_renamed_checkpoint_is_refused(checkpoint):
    other = checkpoint.rename(checkpoint.with_name("checkpoint-9"))
    assert fault_of(other) == "it was written after update 1, not 9 as its name says"


def test_a_link_is_no_file_of_a_checkpoint(checkpoint):
    moved = (checkpoint / "model.safetensors").rename(checkpoint.parent / "elsewhere")
    (checkpoint / "model.safetensors").symlink_to(moved)
    assert fault_of(checkpoint) == "its file 'model.safetensors' is missing"


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize("name", OLD_NAMES)
def test_a_pickle_among_the_files_is_refused_by_name_and_never_opened(
    checkpoint, tmp_path, name, forged
):
    content = pickle.dumps(Trap(tmp_path / "sprung"))
    (checkpoint / name).write_bytes(content)
    if forged:
        from hf_maskgit.training.manifest import checksum

        manifest = json.loads((checkpoint / "manifest.json").read_text())
        listed = {"bytes": len(content), "sha256": checksum(checkpoint / name)}
        manifest["files"][name] = listed
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    assert f"it holds '{name}', which no run wr" in fault_of(checkpoint)
    assert not (tmp_path / "sprung").exists()


def test_checkpoints_of_earlier_releases_are_refused_with_a_way_out(tmp_path):
    old = tmp_path / "checkpoint-5"
    old.mkdir()
    (old / "model.safetensors").write_bytes(b"")
    for name in OLD_NAMES:
        (old / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    said = r"holds pickles \(custom_checkpoint_0.pkl, .*finish that run with the release that began"
    for named in (str(old), "latest"):
        with pytest.raises(ValueError, match=said):
            find_checkpoint(named, tmp_path)
    assert not (tmp_path / "sprung").exists()
