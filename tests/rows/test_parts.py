"""Parts of a folder: nothing that was written whole is lost, and nothing else counts."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hf_maskgit.rows.parts import FORMATS, Journal, PartsFolder, json_line

BATCHES = {(3, 1): ["a\nb", "\u00e9"], (2, 0): ["", '"x"'], (4,): ["last"]}


LOCK = "options.json.lock"


def claim(folder, decides):
    with folder.claimed(decides):
        pass


def written(path):
    journal = Journal(path)
    for samples, outputs in BATCHES.items():
        journal.append(samples, outputs)
    return path.read_bytes()


def test_a_journal_cut_at_any_byte_holds_its_whole_batches_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)  # nobody pulls the plug
    whole = written(tmp_path / "whole")
    lines = whole.splitlines(keepends=True)
    for cut in range(len(whole) + 1):
        path = tmp_path / "cut"
        path.write_bytes(whole[:cut])
        journal = Journal(path)
        # a line is whole before its line break as well
        count = sum(len(b"".join(lines[: i + 1])) - 1 <= cut for i in range(len(lines)))
        kept = dict(list(BATCHES.items())[:count])
        assert journal.read() == kept
        journal.append((7, 8), ["x", "y"])
        assert journal.read() == {**kept, (7, 8): ["x", "y"]}


def test_what_is_no_batch_does_not_count(tmp_path):
    path = tmp_path / "journal"
    assert Journal(path).read() == {}
    lines = ["[]", "3", '{"samples": [1]}', '{"samples": [1, 2], "outputs": ["a"]}', "\x00\x00"]
    path.write_text("\n".join([*lines, '{"samples": [5], "outputs": ["b"]}', ""]))
    assert Journal(path).read() == {(5,): ["b"]}


@pytest.mark.parametrize(("samples", "each"), [(1, 10), (10, 10), (11, 10), (29, 3)])
def test_parts_hold_every_sample_once_and_every_process_reaches_all(tmp_path, samples, each):
    folder = PartsFolder(tmp_path, samples, each, ".txt")
    spans = [folder.span(part) for part in range(folder.count)]
    assert [number for span in spans for number in span] == list(range(samples))
    for world in (1, 2, 5):
        orders = [list(folder.order(rank, world)) for rank in range(world)]
        assert all(sorted(order) == list(range(folder.count)) for order in orders)
        own = [order[: len(range(rank, folder.count, world))] for rank, order in enumerate(orders)]
        assert sorted(part for parts in own for part in parts) == list(range(folder.count))


def test_a_folder_counts_what_is_done_and_forgets_what_was_left(tmp_path):
    folder = PartsFolder(tmp_path, 25, 10, ".txt")
    claim(folder, {"seed": 1})
    folder.journal(1).append((11, 15), ["a", "b"])
    folder.finish(2, lambda path: path.write_text("done"))
    assert folder.num_done() == 5 + 2
    assert not folder.tidy()
    for part in (0, 1):
        folder.finish(part, lambda path: path.write_text("done"))
    (tmp_path / "part-00000.lock").touch()  # of a killed process
    assert folder.tidy()
    names = [f"part-0000{part}-of-00003.txt" for part in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["options.json", *names]
    assert folder.num_done() == 25


def test_a_folder_of_other_options_or_of_other_files_is_refused(tmp_path):
    folder = PartsFolder(tmp_path / "out", 25, 10, ".txt")
    claim(folder, {"seed": 1, "pair": (1, 2)})
    claim(folder, {"seed": 0})  # of a call that was refused before it wrote anything
    claim(folder, {"seed": 1, "pair": (1, 2)})
    folder.journal(0).append((0,), ["a"])
    with pytest.raises(ValueError, match=r"written with seed=1, and .* seed=2. .*--output_file"):
        claim(folder, {"seed": 2, "pair": (1, 2)})
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match=r"holds other files, such as 'mine.txt'; name an empty"):
        claim(PartsFolder(tmp_path, 25, 10, ".txt"), {"seed": 1})


def test_a_folder_that_others_are_about_to_write_is_theirs(tmp_path):
    """Also before its first part is begun, and as long as one of them is at it."""
    folder = PartsFolder(tmp_path, 25, 10, ".txt")
    with folder.claimed({"seed": 1}):
        with folder.claimed({"seed": 1}):
            pass
        with pytest.raises(ValueError, match=r"written with seed=1, and this call has seed=2"):
            claim(folder, {"seed": 2})
    claim(folder, {"seed": 2})


def test_of_calls_at_once_one_has_the_folder_and_the_others_are_told(tmp_path):
    """Of other options; each goes through all that it does in a folder, begun at one moment."""
    for number in range(30):
        folder = PartsFolder(tmp_path / str(number), 25, 10, ".txt")
        together, ended = threading.Barrier(4), threading.Barrier(4)

        def call(seed, folder=folder, together=together, ended=ended):
            together.wait(30)
            try:
                with folder.claimed({"seed": seed}):
                    ended.wait(30)  # nobody leaves before all have tried
                    return seed
            except ValueError as error:
                ended.wait(30)
                return str(error)

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(call, (1, 2, 3, 3)))
        (winner,) = {one for one in found if isinstance(one, int)}
        assert json.loads((folder.folder / "options.json").read_text()) == {"seed": winner}
        told = [one for one in found if isinstance(one, str)]
        assert len(told) == (2 if winner == 3 else 3)
        assert all(f"was written with seed={winner}, and this call has seed=" in t for t in told)
        # nothing is left behind but what the next call needs
        assert {path.name for path in folder.folder.iterdir()} <= {"options.json", LOCK}


def test_a_part_that_cannot_be_written_says_why(tmp_path):
    folder = PartsFolder(tmp_path / "gone", 5, 10, ".txt")
    with pytest.raises(RuntimeError, match=r"Cannot write '.*part-00000.unfinished': No such file"):
        folder.journal(0).append((1,), ["a"])
    with pytest.raises(RuntimeError, match=r"part-00000-of-00001.txt': No such file.*it goes on"):
        folder.finish(0, lambda path: path.write_text("a"))
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match="Cannot write '.*file/out': Not a directory. Make room"):
        claim(PartsFolder(tmp_path / "file/out", 5, 10, ".txt"), {})


@pytest.mark.parametrize("value", [float("nan"), b"bytes", "\ud800"])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(
        ValueError, match=r"JSON cannot hold a value of the row .*parquet, or leave"
    ):
        json_line({"text": "a", "value": value}, "output")


def test_lines_hold_one_result_each(tmp_path):
    records = [{"text": "a\u2028", "output": "b\nc\rd"}, {"text": "", "output": "d"}]
    FORMATS["text"].write(tmp_path / "a", records, None, "output")
    assert (tmp_path / "a").read_text() == "b\\nc\\rd\nd\n"
    FORMATS["jsonl"].write(tmp_path / "b", records, None, "output")
    lines = (tmp_path / "b").read_text().split("\n")
    assert [json.loads(line) for line in lines[:-1]] == records
