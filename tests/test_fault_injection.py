"""A run that is killed at any moment ends as if it had not been."""

import pytest

from tests.support.launches import run


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "moments"), [(1, 30), (2, 10)])
def test_a_run_killed_at_random_moments_comes_to_the_same_weights(
    processes, moments, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))  # killed while it is written, too
    words = ("--moments", moments, "--processes", processes)
    code, said = run("-m", "tests.support.fault_injection", *words)
    assert code == 0, said
