"""Damaged files of a checkpoint, and recipes: each is read, or refused in a sentence of ours."""

import pytest

from hf_maskgit.core.checkpoint_files import raised_in
from tests.support.mutated import Mutations
from tests.support.project import PACKAGE


def raw(seed, number, folder):
    """What goes wrong in a sentence of another library, of so many damaged copies."""
    mutations, found = Mutations(seed), []
    for count in range(number):
        copy = folder / str(count)
        copy.mkdir()
        what, use = mutations.draw(copy)
        try:
            use()
        except Exception as error:
            if not raised_in(error, PACKAGE):
                found.append(f"{what}: {type(error).__name__}: {error}")
    return found


@pytest.mark.wide
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path):
    assert raw(0, 40, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_damaged_files_are_refused_in_a_sentence(seed, tmp_path):
    assert raw(seed, 400, tmp_path) == []
