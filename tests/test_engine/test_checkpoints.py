from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer

from mtadapt.engine.checkpoints import (
    damage_of,
    load_weights,
    newest_whole_checkpoint,
    remove_leftovers,
    write_atomically,
)
from mtadapt.errors import MTAdaptError


def write(path: Path, second: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(weight=torch.arange(5000)), path)
    os.utime(path, (second, second))
    return path


def test_the_last_written_one_is_taken_whatever_its_number(tmp_path: Path):
    write(tmp_path / "iter_300.pth", 1)
    newest = write(tmp_path / "iter_100.pth", 2)
    write(tmp_path / "best_det_iter_100.pth", 3)
    assert newest_whole_checkpoint(tmp_path) == str(newest)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_300.pth"))
    assert newest_whole_checkpoint(tmp_path) == str(newest)
    for name in ("iter_9.pth", "iter_11.pth", "iter_10.pth"):
        write(tmp_path / name, 9)
    assert newest_whole_checkpoint(tmp_path) == str(tmp_path / "iter_11.pth")


def test_checkpoints_in_another_folder_are_found_through_the_pointer(tmp_path: Path):
    other = write(tmp_path / "out" / "iter_2.pth", 1)
    newest = write(tmp_path / "out" / "iter_3.pth", 2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last_checkpoint").write_text(str(other))
    assert newest_whole_checkpoint(tmp_path / "run") == str(newest)
    named = write(tmp_path / "out" / "model.pth", 3)
    (tmp_path / "run" / "last_checkpoint").write_text(str(named))
    assert newest_whole_checkpoint(tmp_path / "run") == str(named)
    assert newest_whole_checkpoint(tmp_path / "empty") is None


def test_damaged_ones_are_passed_over_and_none_left_is_an_error(tmp_path: Path):
    whole = write(tmp_path / "iter_1.pth", 1)
    truncated = write(tmp_path / "iter_2.pth", 2)
    content = truncated.read_bytes()
    truncated.write_bytes(content[:1000])
    changed = write(tmp_path / "iter_3.pth", 3)
    changed.write_bytes(content[:20000] + bytes([content[20000] ^ 1]) + content[20001:])
    assert damage_of(truncated) == "the checkpoint is truncated (1,000 bytes)"
    assert "damaged at" in str(damage_of(changed))
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(b"\xff\xd8\xff\xe0 a picture")
    assert damage_of(picture) == "it is no checkpoint of PyTorch"
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "")
    assert damage_of(tmp_path / "other.zip") == "it is no checkpoint of PyTorch"
    assert newest_whole_checkpoint(tmp_path) == str(whole)
    whole.unlink()
    with pytest.raises(MTAdaptError, match="none of the 2 checkpoints is whole"):
        newest_whole_checkpoint(tmp_path)


def test_a_checkpoint_of_older_pytorch(tmp_path: Path):
    state = dict(weight=torch.arange(3.0))
    path = tmp_path / "older.pth"
    torch.save(dict(state_dict=state), path, _use_new_zipfile_serialization=False)
    assert damage_of(path) is None
    assert load_weights(path)["weight"].equal(state["weight"])


def test_a_file_is_replaced_in_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a" / "iter_1.pth"
    write_atomically(path, b"old")

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert path.with_name("iter_1.pth.tmp").is_file()
    remove_leftovers(path.parent)
    assert [each.name for each in path.parent.iterdir()] == ["iter_1.pth"]


class Harmful:
    """What an unpickler that trusts the file would run."""

    def __reduce__(self) -> tuple:
        return (os.mkdir, ("harm",))


def test_weights_are_read_in_their_order_and_nothing_else_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    state = dict(b=torch.arange(3), a=torch.ones(2, 2))
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    for content in (state, dict(state_dict=state, message_hub=dict(loss=history), optimizer=dict(state={}))):
        torch.save(content, "iter_1.pth")
        found = load_weights("iter_1.pth")
        assert [*found] == ["b", "a"] and all(torch.equal(found[name], value) for name, value in state.items())
    torch.save(dict(state_dict=state, meta=Harmful()), "harmful.pth")
    with pytest.raises(MTAdaptError, match=r"harmful.pth: no checkpoint that can be read safely: .*mkdir"):
        load_weights("harmful.pth")
    assert not Path("harm").exists()


def test_files_that_are_no_checkpoints_are_one_line(tmp_path: Path):
    with pytest.raises(MTAdaptError, match=r"gone.pth: no such file; give a checkpoint"):
        load_weights(tmp_path / "gone.pth")
    (tmp_path / "half.pth").write_bytes(write(tmp_path / "whole.pth", 1).read_bytes()[:-3000])
    with pytest.raises(MTAdaptError, match=r"half.pth: .*the checkpoint is truncated \([\d,]+ bytes\)$"):
        load_weights(tmp_path / "half.pth")
    for content in (dict(state_dict=dict(weight=1)), [torch.ones(2)], {}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(MTAdaptError, match=r"other.pth: holds no state dict"):
            load_weights(tmp_path / "other.pth")
