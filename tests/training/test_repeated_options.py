"""Options that take several values and stand more than once on a command line."""

from dataclasses import dataclass, field

import pytest

from hf_maskgit.training.recipes import option, parse_options


@dataclass
class Options:
    texts: list[str] | None = option(None, "Texts.")
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    name: str = option("none", "One word.")


@pytest.mark.parametrize(
    "words",
    [
        "--texts a b c",
        "--texts a --texts b c",
        "--texts=a --texts=b --texts=c",
        "--texts a --name x --texts b --texts=c",
    ],
)
def test_all_values_count_wherever_they_stand(words):
    (options,) = parse_options((Options,), words.split())
    assert options.texts == ["a", "b", "c"]
    assert options.sizes == [1, 2]


@pytest.mark.parametrize(
    "words",
    [
        ["--texts=-x", "b", "--texts=--name"],
        ["--texts=-x", "--texts", "b", "--texts=--name", "--name", "none"],
    ],
)
def test_a_value_behind_an_equals_sign_may_begin_with_a_dash(words):
    (options,) = parse_options((Options,), words)
    assert (options.texts, options.name) == (["-x", "b", "--name"], "none")


def test_a_value_with_spaces_may_begin_with_dashes_and_keeps_its_place():
    words = ["--texts", "a", "--- b ---", "c", "--texts", "d"]
    (options,) = parse_options((Options,), words)
    assert options.texts == ["a", "--- b ---", "c", "d"]


def test_values_of_a_recipe_may_begin_with_dashes(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("texts: [-x, --name, a b]\nsizes: [-1, 2]\n")
    (options,) = parse_options((Options,), [str(recipe)])
    assert (options.texts, options.sizes) == (["-x", "--name", "a b"], [-1, 2])


def test_numbers_are_numbers_and_a_default_is_replaced():
    (options,) = parse_options((Options,), ["--sizes", "-3", "--sizes", "4"])
    assert options.sizes == [-3, 4]


def test_the_last_one_counts_of_an_option_that_takes_one_value():
    (options,) = parse_options((Options,), ["--name", "a", "--name=b"])
    assert options.name == "b"


def test_a_command_line_replaces_the_list_of_a_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("texts: [x, y]\nname: of the recipe\n")
    words = [str(recipe), "--texts", "a", "--texts", "b"]
    (options,) = parse_options((Options,), words)
    assert (options.texts, options.name) == (["a", "b"], "of the recipe")
    (options,) = parse_options((Options,), words[:1])
    assert options.texts == ["x", "y"]


def test_an_option_without_a_value_is_still_refused(capsys):
    with pytest.raises(SystemExit):
        parse_options((Options,), ["--texts"])
    assert "--texts: expected at least one argument" in capsys.readouterr().err
