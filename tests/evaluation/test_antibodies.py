"""Domains are found in reads and numbered; the encoder of the package is read as tensors."""

import importlib.util
import pickle
import sys
from types import SimpleNamespace

import pytest
import torch

from hf_maskgit.evaluation import antibodies
from hf_maskgit.evaluation.antibodies import (
    LOOPS,
    SETS,
    Marks,
    domains_of,
    is_whole,
    load_annotator,
    load_antiberty,
    marks_of,
    number,
    read_reads,
    reading_frames,
    spelled,
)
from tests.support.antibodies import (
    NUMBERS,
    Annotator,
    coded,
    domain,
    residue_tokenizer,
)
from tests.support.tiny import tiny_encoder

HEAVY = (
    "EVQLVESGGGLVQPGRSLRLSCAASGFTFDDYAMHWVRQAPGKGLEWVSAITWNSGHIDYADSVEGRFTISRDNAKNSLYLQMNSLRAEDTAVYYC"
    "AKVSYLSTASSLDYWGQGTLVTVSS"  # of adalimumab
)
LIGHT = (
    "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQ"
    "GTKVEIK"  # of trastuzumab
)


def test_a_strand_is_read_in_three_frames_up_to_what_ends_a_protein():
    """A codon with an unknown base ends it as well; what is too short is left out."""
    residues = domain(0).residues
    assert residues in list(reading_frames(coded(residues)))
    cut = coded(residues[:90]) + "NNN" + coded(residues[:79])
    found = [part for part in reading_frames(cut) if part in residues]
    assert found == [residues[:90]]
    assert list(reading_frames("ATG" * 79)) == []
    assert "M" * 80 in list(reading_frames("ATG" * 80))


def test_loops_are_told_by_imgt_numbers_insertions_included():
    one = domain(0)
    assert {loop: len(one.places(loop)) for loop in LOOPS} == {"CDR1": 12, "CDR2": 10, "CDR3": 13}
    assert one.text_of("CDR3") == one.residues[NUMBERS.index("105") : NUMBERS.index("118")]
    longer = one._replace(
        residues=one.residues.replace(one.text_of("CDR3"), one.text_of("CDR3") + "YY"),
        numbers=tuple(n for m in NUMBERS for n in ((m, "111A", "112A") if m == "111" else (m,))),
    )
    assert longer.text_of("CDR3") == one.text_of("CDR3") + "YY"


@pytest.mark.parametrize(
    ("number", "marks"),
    [
        ("at1", Marks(True, True, True)),
        ("at23", Marks(False, True, True)),
        ("at104", Marks(False, True, True)),
        ("at41", Marks(True, False, True)),
        ("at118", Marks(True, True, False)),
        ("at121", Marks(True, True, False)),
    ],
)
def test_conserved_residues_are_looked_for_in_their_places(number, marks):
    changed = domain(0, **{number: "A"})
    assert marks_of(changed) == marks
    assert is_whole(changed) == all(marks)
    # The J motif of a light chain begins with another residue.
    assert not marks_of(domain(0)._replace(chain="K")).j_motif
    assert marks_of(domain(0, at118="F")._replace(chain="K")).j_motif


def test_a_domain_without_a_loop_or_without_a_beginning_is_not_whole():
    whole = domain(0)
    for first in ("27", "39"):  # nothing stands before the first loop; no first loop
        cut = NUMBERS.index(first)
        assert not is_whole(whole._replace(residues=whole.residues[cut:], numbers=NUMBERS[cut:]))


def test_reads_give_their_whole_domains_one_for_each_third_loop():
    first, second = domain(0), domain(1)
    loop = NUMBERS.index("105")
    # The same third loop in another domain: a cell's descendant.
    kin = second.residues[:loop] + first.text_of("CDR3") + second.residues[loop + 13 :]
    texts = [first.residues, domain(2, at23="S").residues, kin, second.residues, "MAVLG"]
    assert domains_of(map(coded, texts), Annotator()) == [first, second]
    assert number("MAVLG", Annotator()) is None


def test_texts_are_spelled_with_masks_in_some_places():
    tokenizer = residue_tokenizer()
    text = spelled("CAR", [0, 2], tokenizer.mask_token)
    assert text == "[MASK] A [MASK]"
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == [
        *("[CLS]", "[MASK]", "A", "[MASK]", "[SEP]")
    ]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in the place of those with weights and sequences; importing it would fail."""
    (tmp_path / "__init__.py").write_text("raise AssertionError('imported')")
    found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
    return tmp_path


class Opened:
    """What unpickling it does leaves a trace."""

    def __reduce__(self):
        return exec, ("import sys; sys._opened_by_test = True",)


@pytest.mark.wide
def test_the_encoder_is_read_as_tensors_and_no_pickle_is_opened(package):
    """Beside the weights that the package has lie arguments of its training, pickled."""
    folder = package / "trained_models" / "AntiBERTy_md_smooth"
    encoder = tiny_encoder(vocab_size=25)
    encoder.config.save_pretrained(folder)
    torch.save(encoder.state_dict(), folder / "pytorch_model.bin")
    (folder / "training_args.bin").write_bytes(pickle.dumps(Opened()))
    vocabulary = residue_tokenizer().get_vocab()
    names = sorted(vocabulary, key=lambda name: vocabulary[name])
    (package / "trained_models/vocab.txt").write_text("\n".join(names))
    model, tokenizer = load_antiberty()
    assert not model.training
    assert tokenizer.get_vocab() == vocabulary
    for name, weight in encoder.state_dict().items():
        assert torch.equal(model.denoiser.state_dict()[name], weight)
    torch.save({"weight": Opened()}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="weights_only|Weights only"):
        load_antiberty()
    assert not hasattr(sys, "_opened_by_test")


def test_a_release_without_weights_is_refused_with_the_one_that_has_them(package):
    with pytest.raises(ImportError, match=r"holds no weights.*pip install antiberty==0\.1\.3\."):
        load_antiberty()


def test_reads_are_those_of_the_file(package):
    (package / "test_data").mkdir()
    (package / "test_data" / SETS["heavy"]).write_text(">one\nacg\nT \n>two\nGGG\n")
    assert read_reads("heavy") == ["ACGT", "GGG"]


def test_what_is_missing_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "immunum", None)
    with pytest.raises(ImportError, match=r"AntiBERTy. pip install 'hf_maskgit\[antibodies\]'"):
        load_antiberty()
    with pytest.raises(ImportError, match="pip install --no-deps abstar==0.8.0"):
        read_reads("heavy")
    with pytest.raises(ImportError, match=r"immunum, which is not installed: pip install 'hf_mas"):
        load_annotator()


@pytest.mark.slow
def test_real_chains_are_numbered_with_their_known_loops():
    pytest.importorskip("immunum", reason="the extra antibodies is not installed")
    annotator = load_annotator()
    loops = {
        HEAVY: ("H", ["GFTFDDYA", "ITWNSGHI", "AKVSYLSTASSLDY"]),
        LIGHT: ("K", ["QDVNTA", "SAS", "QQHYTTPPT"]),
    }
    for residues, (chain, texts) in loops.items():
        found, confidence = number(residues, annotator)
        assert (found.residues, found.chain, confidence > 0.5) == (residues, chain, True)
        assert [found.text_of(loop) for loop in LOOPS] == texts
        assert is_whole(found)
    assert (
        number("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQ", annotator)
        is None
    )


@pytest.mark.slow
def test_real_reads_hold_whole_domains_of_their_kind():
    if importlib.util.find_spec("abstar") is None:
        pytest.skip("the package abstar, with real sequences, is not installed")
    pytest.importorskip("immunum", reason="the extra antibodies is not installed")
    annotator = load_annotator()
    for name, chains in (("heavy", {"H"}), ("heavy, HIV", {"H"}), ("light, HIV", {"K", "L"})):
        found = domains_of(read_reads(name)[:60], annotator)
        assert len(found) > 15, name
        assert {one.chain for one in found} == chains
        assert all(is_whole(one) and len(one.numbers) == len(one.residues) for one in found)


@pytest.mark.slow
def test_the_encoder_of_the_package_knows_what_chains_are_like():
    """Hidden one by one, most residues outside the loops are the likeliest ones."""
    if importlib.util.find_spec("antiberty") is None:
        pytest.skip("the package antiberty is not installed")
    model, tokenizer = load_antiberty()
    assert antibodies.CHAINS.keys() == {"H", "K", "L"}
    hidden = list(range(0, 24, 3))
    texts = [spelled(HEAVY, [place], tokenizer.mask_token) for place in hidden]
    rows = tokenizer(texts, return_tensors="pt")
    done = model.generate(**rows, do_sample=False, steps=1)
    right = [
        done[i, place + 1] == tokenizer.convert_tokens_to_ids(HEAVY[place])
        for i, place in enumerate(hidden)
    ]
    assert sum(map(int, right)) >= 6
