"""The script that compares attention caches: a table, figures and the texts."""

import json

import pytest
import torch

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation.caches import compare_caches
from scripts import compare_caches as script
from tests.support.support_matrix import tiny_generator
from tests.support.tiny import tiny_model

SMALL = ["--length", "8", "--steps", "4", "--num_texts", "3", "--block_lengths", "4"]


@pytest.mark.wide
def test_a_row_for_every_cache_and_block_length(saved, tmp_path, capsys):
    output = tmp_path / "found.json"
    found = script.main(
        [
            *("--model", saved, *SMALL, "8", "--repeats", "2", "--output_file", str(output)),
            *("--caches", '[{"cache_refresh_interval": 1}, {"cache_refresh": "adaptive"}, {}]'),
        ]
    )
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:2] for line in table[2:]] == [
        [f"| {length}", name]
        for length in (4, 8)
        for name in (
            "none",
            "`cache_refresh_interval=1`",
            "`cache_refresh='adaptive'`",
            "the defaults",
        )
    ]
    assert json.loads(output.read_text()) == found
    for row in found:
        assert row["seconds"] > 0
        assert 0 <= row["agreement"] <= 1
        assert row["nats_per_token"] > 0
        assert len(row["texts"]) == 3
    exact, plain = found[1], found[0]
    assert exact["agreement"] == plain["agreement"] == 1
    assert exact["nats_per_token"] == plain["nats_per_token"]


@pytest.mark.wide
def test_the_figures_are_those_of_the_texts():
    model, text = tiny_model().double(), torch.tensor([[2, *[4] * 9, 3]])
    options = {"block_length": 3, "steps": 9, "anneal_temperature": False}
    plain, cached = compare_caches(
        model, text, [{"cache_refresh_interval": 9}], num_texts=5, seed=3, **options
    )
    common = {"num_return_sequences": 5, "seed": 3, "max_new_tokens": 0, **options}
    assert torch.equal(plain.texts, model.generate(text, use_cache=False, **common))
    assert torch.equal(cached.texts, model.generate(text, cache_refresh_interval=9, **common))
    same = (plain.texts == cached.texts)[:, 1:-1].double().mean()
    assert cached.agreement == pytest.approx(float(same))
    assert plain.std_error > 0
    assert plain.beyond == plain.beyond_std_error == 0
    assert cached.beyond == pytest.approx(cached.nats_per_token - plain.nats_per_token)
    # A difference spreads by no more than its two parts together.
    assert 0 < cached.beyond_std_error < plain.std_error + cached.std_error


def test_a_new_encoder_tells_of_the_time_alone(monkeypatch, capsys):
    monkeypatch.setattr(script, "MaskGitForMaskedLM", lambda config: tiny_model())
    threads = torch.get_num_threads()
    found = script.main(
        ["--new_encoder", "bert", "--prompt_length", "5", *SMALL, "--caches", "[{}]"]
    )
    assert torch.get_num_threads() == threads
    assert all(row["nats_per_token"] != row["nats_per_token"] for row in found)
    assert "| nan ± nan | +nan ± nan |" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["sampled", "window"])
def test_the_masks_are_filled_however_the_model_finds_lengths(way):
    """What is written is what the same model writes that stores no way; none is longer."""
    masked, found = torch.tensor([[2, *[4] * 8, 3]]), []
    for stored in (None, way):
        model = tiny_model()
        model.config.lengths, model.config.end_fill = {"2": 1}, 6
        model.generation_config.num_tokens = stored
        caches = compare_caches(model, masked, [{}], num_texts=2, steps=3, judged=False)
        found.append(torch.stack([one.texts for one in caches]))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--new_encoder", "bert", "--caches", "8"], "--caches must be a JSON list of objects suc"),
        (["--new_encoder", "bert", "--caches", "{"], "--caches is no JSON: "),
        (["--new_encoder", "bart"], "'bart' is an encoder-decoder"),
    ],
)
def test_what_is_refused_before_anything_is_written(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        script.main(options)


@pytest.mark.parametrize("options", [[], ["--model", "a", "--new_encoder", "bert"]])
def test_one_model_is_named(options, capsys):
    with pytest.raises(SystemExit):
        script.main(options)
    assert "Give one of --model and --new_encoder." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("caches", "sentence"),
    [
        ([], "There is no cache to compare; give options of one for each."),
        ([{"order": "random"}], "`order` is no option of a cache; they are use_cache, cache_refre"),
    ],
)
def test_what_is_no_cache(caches, sentence):
    with pytest.raises(ValueError, match=sentence):
        compare_caches(tiny_model(), torch.tensor([[2, 4, 3]]), caches)


@pytest.mark.parametrize("name", ["num_return_sequences", "max_new_tokens", "use_cache"])
def test_options_of_all_are_those_of_a_sampler(name):
    with pytest.raises(ValueError, match=f"`{name}` is no option of all texts that are compared"):
        compare_caches(tiny_model(), torch.tensor([[2, 4, 3]]), [{}], **{name: 3})


def test_a_sampler_that_goes_without_a_cache_is_refused_before_anything_is_written():
    with pytest.raises(ValueError, match="pace='speculative' asks for several texts of a row"):
        compare_caches(tiny_model(), torch.tensor([[2, 4, 3]]), [{}], pace="speculative")


def test_a_model_without_a_cache():
    model = tiny_generator("deberta-v2")
    assert isinstance(model, MaskGitForMaskedLM)
    with pytest.raises(ValueError, match="This model has no attention cache to compare: the atten"):
        compare_caches(model, torch.tensor([[2, 4, 3]]), [{}])
