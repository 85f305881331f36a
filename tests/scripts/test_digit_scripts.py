"""The scripts that write the digits of scikit-learn and let a generator write some."""

import json

import pytest
from datasets import Dataset, load_from_disk

from scripts import evaluate_digits, prepare_digits, train
from tests.support.tiny_ids import save_generator_of_ids

PIL = pytest.importorskip("PIL.Image")
datasets = pytest.importorskip("sklearn.datasets")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    prepare_digits.main(["--output_dir", str(folder), "--validation_fraction", "0.05"])
    return folder / "images"


def test_every_image_is_there_once_with_its_digit_behind_the_shades(images):
    data = load_from_disk(images)
    assert {name: len(split) for name, split in data.items()} == {"train": 1707, "validation": 90}
    real = datasets.load_digits()
    expected = [
        (17 + int(digit), *map(int, pixels))
        for digit, pixels in zip(real.target, real.data, strict=True)
    ]
    found = [(*row["class"], *row["pixels"]) for split in data.values() for row in split]
    assert sorted(found) == sorted(expected)


def test_a_share_lies_between_0_and_1():
    with pytest.raises(ValueError, match="must lie between 0 and 1, got 1"):
        prepare_digits.DigitOptions(validation_fraction=1.0)


def test_rows_that_are_no_images_are_refused(tmp_path):
    Dataset.from_dict({"pixels": [[0] * 64]}).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match="has no column 'class', but 'pixels'; it must hold image"):
        evaluate_digits.read_images(str(tmp_path / "other"), "train")


@pytest.mark.wide
def test_pictures_and_figures_of_a_generator(images, tmp_path, capsys):
    model = save_generator_of_ids(tmp_path / "model", 27, 65)
    output = tmp_path / "evaluation"
    samplers = [{"steps": 4}, {"order": "random", "steps": 2}]
    figures = evaluate_digits.main(
        [
            *("--model", model, "--dataset", str(images), "--output_dir", str(output)),
            *("--num_images", "10", "--samplers", json.dumps(samplers)),
        ]
    )
    assert json.loads((output / "figures.json").read_text()) == figures
    assert figures["real"]["accuracy"] > 0.95
    assert figures["real"]["images"] == 90
    kinds = [(row["kind"], row["images"], row["passes"]) for row in figures["samplers"]]
    assert kinds[:2] == [("written", 100, 4), ("restored", 90, 4)]
    assert kinds[2:] == [("written", 100, 2), ("restored", 90, 2)]
    written, restored = figures["samplers"][:2]
    assert written["accuracy"] < restored["accuracy"] < 0.95  # half of it is real
    assert written["distance"] > restored["distance"] > figures["real"]["distance"]
    sizes = {"classes": (10, 10), "inpainting": (10, 5), "passes": (10, 2)}
    for name, (columns, lines) in sizes.items():
        with PIL.open(next(output.glob(f"{name}.*"))) as drawn:
            assert drawn.size == (6 * (9 * columns + 1), 6 * (9 * lines + 1))
            assert getattr(drawn, "n_frames", 1) == (5 if name == "passes" else 1)
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:2] for line in table[-4:]] == [
        ["| written, `steps=4`", "4"],
        ["| restored, `steps=4`", "4"],
        ["| written, `order='random'`, `steps=2`", "2"],
        ["| restored, `order='random'`, `steps=2`", "2"],
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_accelerate")
def test_the_recipe_goes_from_data_to_pictures(images, tmp_path):
    run = tmp_path / "run"
    recipe = ["scripts/recipes/digits.yaml", "--dataset", str(images), "--output_dir", str(run)]
    train.main([*recipe, "--max_steps", "4", "--eval_every", "4", "--checkpoint_every", "4"])
    words = ["--model", str(run), "--dataset", str(images), "--output_dir", str(tmp_path / "out")]
    figures = evaluate_digits.main([*words, "--num_images", "10", "--samplers", '[{"steps": 2}]'])
    assert [row["passes"] for row in figures["samplers"]] == [2, 2]
    assert (tmp_path / "out" / "passes.gif").exists()
