"""The store: a step runs once, runs again for a reason, is never half done, and a result knows if it still holds."""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from functools import partial
from pathlib import Path

import pytest

from livestock.exceptions import MissingResult, StaleResult
from livestock.files.hashing import fingerprint
from livestock.files.write import write_text
from livestock.pipeline.store import LINEAGE, read_records, require_fresh, run_step, trace


class Doubler:
    """A step that writes its input twice, and counts how often it ran."""

    def __init__(self, root: Path) -> None:
        self.root, self.n_runs, self.settings, self.version = root, 0, {"times": 2}, 1
        self.source, self.target = root / "source.txt", root / "target.txt"
        self.source.write_text("a")

    def action(self) -> None:
        self.n_runs += 1
        write_text(self.source.read_text() * self.settings["times"], self.target)

    def run(self) -> bool:
        files = {"inputs": [self.source], "outputs": [self.target]}
        return run_step("double", self.action, **files, settings=self.settings, workspace=self.root,
                        version=self.version)


@pytest.fixture
def step(tmp_path: Path) -> Doubler:
    return Doubler(tmp_path)


def test_a_finished_step_is_skipped_and_says_so(step: Doubler, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert step.run() is True
    assert step.run() is False
    assert step.n_runs == 1
    assert "double: done before, skipped (target.txt)" in caplog.text


@pytest.mark.parametrize("what", ["input", "setting", "output gone", "output changed", "lineage gone", "version"])
def test_a_step_runs_again_when_something_changed(step: Doubler, what: str) -> None:
    step.run()
    if what == "version":
        step.version = 2
    elif what == "input":
        step.source.write_text("b")
    elif what == "setting":
        step.settings["times"] = 3
    elif what == "output gone":
        step.target.unlink()
    elif what == "output changed":
        step.target.write_text("torn")
    else:
        (step.root / LINEAGE).unlink()
    assert step.run() is True
    assert step.target.read_text() == step.source.read_text() * step.settings["times"]


def test_a_step_that_failed_is_not_done(step: Doubler) -> None:
    step.run()
    step.settings["times"] = "not a number"  # type: ignore[assignment]
    with pytest.raises(TypeError):
        step.run()
    with pytest.raises(TypeError):
        step.run()
    step.settings["times"] = 2
    assert step.run() is False  # what it had made before is still whole
    step.target.write_text("half of another")
    assert step.run() is True


def test_a_missing_input_says_which(step: Doubler) -> None:
    step.source.unlink()
    with pytest.raises(MissingResult, match="step double: .*source.txt is missing"):
        step.run()


def test_an_output_that_was_not_written_is_an_error(step: Doubler) -> None:
    with pytest.raises(RuntimeError, match="expected to write .*other.txt"):
        run_step("other", step.action, inputs=[], outputs=[step.root / "other.txt"], settings={}, workspace=step.root)


def test_the_record_says_what_was_made_from_what(step: Doubler) -> None:
    step.run()
    record = read_records(step.root)["double"]
    assert record.inputs == {"source.txt": fingerprint(step.source)}
    assert record.outputs == {"target.txt": fingerprint(step.target)}
    assert record.settings == {"times": 2}


def test_a_workspace_that_moves_makes_nothing_again(step: Doubler, tmp_path: Path) -> None:
    step.root = tmp_path / "work"
    step.root.mkdir()
    step.source, step.target = step.root / "source.txt", step.root / "target.txt"
    step.source.write_text("a")
    step.run()
    moved = tmp_path / "elsewhere/deep"
    shutil.copytree(step.root, moved)  # with other times of change
    shutil.rmtree(step.root)
    step.root, step.source, step.target = moved, moved / "source.txt", moved / "target.txt"
    assert step.run() is False
    assert require_fresh(moved, step.target, "05").step == "double"


def test_a_line_that_a_killed_process_left_counts_as_not_written(step: Doubler) -> None:
    step.run()
    lines = (step.root / LINEAGE).read_bytes()
    (step.root / LINEAGE).write_bytes(lines[: len(lines) // 2])
    assert read_records(step.root) == {}
    assert step.run() is True
    assert list(read_records(step.root)) == ["double"]
    assert step.run() is False


def chain(root: Path) -> list[Path]:
    """raw/a.txt -> table.txt -> weights.txt, the last with settings.yaml too."""
    paths = [root / "raw/a.txt", root / "table.txt", root / "weights.txt", root / "settings.yaml"]
    for path in paths:
        if not path.exists():
            write_text("# comment\nlr: 1\n", path)
    for name, inputs, output in (("read", [root / "raw"], paths[1]), ("train", [paths[1], paths[3]], paths[2])):
        run_step(name, partial(write_text, name, output), inputs=inputs, outputs=[output], settings={}, workspace=root,
                 by=f"02_{name}")
    return paths


def test_a_result_holds_as_long_as_all_that_it_rests_on(tmp_path: Path) -> None:
    _, table, weights, settings = chain(tmp_path)
    assert require_fresh(tmp_path, weights, "04").step == "train"
    settings.write_text("# another comment\nlr: 1\n")  # which changes nothing
    assert require_fresh(tmp_path, weights, "04").step == "train"
    settings.write_text("lr: 2\n")
    with pytest.raises(StaleResult, match=r"weights\.txt: made from another settings\.yaml .*; run 02_train again"):
        require_fresh(tmp_path, weights, "04")
    settings.write_text("lr: 1\n")
    table.write_text("another")
    with pytest.raises(StaleResult, match=r"made from another table\.txt than the present one"):
        require_fresh(tmp_path, weights, "04")


def test_a_change_further_back_is_found(tmp_path: Path) -> None:
    weights = chain(tmp_path)[2]
    answer = tmp_path / "answer.txt"
    run_step("answer", lambda: write_text("x", answer), inputs=[weights], outputs=[answer], settings={},
             workspace=tmp_path, by="08")
    (tmp_path / "settings.yaml").write_text("lr: 3\n")
    with pytest.raises(StaleResult, match=r"answer\.txt: made from another settings\.yaml"):
        require_fresh(tmp_path, answer, "08")
    (tmp_path / "settings.yaml").unlink()  # what is gone says nothing
    require_fresh(tmp_path, answer, "08")


def test_what_was_never_made_names_what_to_run(tmp_path: Path) -> None:
    weights = chain(tmp_path)[2]
    with pytest.raises(MissingResult, match=r"other\.txt: not there yet; run 06_silver first"):
        require_fresh(tmp_path, tmp_path / "other.txt", "06_silver")
    weights.write_text("put there by hand")
    with pytest.raises(StaleResult, match="expected the one that 02_train wrote, found another"):
        require_fresh(tmp_path, weights, "04")


def test_a_result_is_traced_to_the_raw_data(tmp_path: Path) -> None:
    chain(tmp_path)
    other = tmp_path / "other.txt"
    run_step("other", lambda: write_text("x", other), inputs=[], outputs=[other], settings={}, workspace=tmp_path)
    steps = trace(tmp_path, ["weights.txt"])
    assert [record.step for record in steps] == ["train", "read"]
    assert list(steps[-1].inputs) == ["raw"]


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    before = fingerprint(tmp_path / "folder")
    (tmp_path / "folder/new.txt").write_text("x")
    assert fingerprint(tmp_path / "folder") != before
    before = fingerprint(tmp_path / "folder")
    os.utime(tmp_path / "folder/new.txt", (1, 1))
    assert fingerprint(tmp_path / "folder") == before
    (tmp_path / "folder/new.txt").write_text("y")  # as long
    assert fingerprint(tmp_path / "folder") != before


def write_zip(path: Path, last: str) -> None:
    """A stored zip of 20 MB, more than is read of it, that differs only in its first member."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("first.txt", last), ("large.bin", bytes(20 << 20))):
            archive.writestr(zipfile.ZipInfo(name), content)


def test_a_zip_is_known_by_its_list_of_members(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder/a.ZIP"
    write_zip(path, "one")
    before = fingerprint(path), fingerprint(path.parent)
    os.utime(path, (1, 1))  # copied from Drive, say
    assert (fingerprint(path), fingerprint(path.parent)) == before
    write_zip(path, "two")  # as long, 20 MB before the end
    after = fingerprint(path), fingerprint(path.parent)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_what_a_killed_process_left_half_written_is_removed(step: Doubler) -> None:
    torn, other = step.root / ".target.txt.4711", step.root / ".another.txt.4711"
    of_a_user = step.root / ".target.txt.old"
    of_a_user.write_text("kept")
    torn.write_text("half")
    other.write_text("of another step")
    step.run()
    assert not torn.exists()
    assert other.exists() and of_a_user.exists()
