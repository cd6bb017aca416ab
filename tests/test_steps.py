"""A step runs once, runs again for a reason, and is never half done."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from livestock.files.hashing import fingerprint
from livestock.files.write import write_text
from livestock.pipeline.store import run_step


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


def test_a_finished_step_is_skipped_and_says_so(step: Doubler, capsys: pytest.CaptureFixture[str]) -> None:
    assert step.run() is True
    assert step.run() is False
    assert step.n_runs == 1
    assert "double: done before, skipped (target.txt)" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["input", "setting", "output gone", "output changed", "manifest gone", "version"])
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
        (step.root / "interim/steps/double.json").unlink()
    assert step.run() is True
    assert step.target.read_text() == step.source.read_text() * step.settings["times"]


def test_a_step_that_failed_is_not_done(step: Doubler) -> None:
    step.run()
    step.settings["times"] = "not a number"  # type: ignore[assignment]
    with pytest.raises(TypeError):
        step.run()
    step.settings["times"] = 2
    assert step.run() is True


def test_a_missing_input_says_which(step: Doubler) -> None:
    step.source.unlink()
    with pytest.raises(FileNotFoundError, match="step double: .*source.txt is missing"):
        step.run()


def test_an_output_that_was_not_written_is_an_error(step: Doubler) -> None:
    with pytest.raises(RuntimeError, match="expected to write .*other.txt"):
        run_step("other", step.action, inputs=[], outputs=[step.root / "other.txt"], settings={}, workspace=step.root)


def test_the_manifest_says_what_was_made_from_what(step: Doubler) -> None:
    step.run()
    manifest = json.loads((step.root / "interim/steps/double.json").read_text())
    assert manifest["inputs"] == {str(step.source): fingerprint(step.source)}
    assert manifest["outputs"] == {str(step.target): fingerprint(step.target)}
    assert manifest["settings"] == {"times": 2}


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    before = fingerprint(tmp_path / "folder")
    (tmp_path / "folder/new.txt").write_text("x")
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
    torn.write_text("half")
    other.write_text("of another step")
    step.run()
    assert not torn.exists()
    assert other.exists()


def test_steps_recorded_before_there_were_versions_count_as_the_first(step: Doubler) -> None:
    step.run()
    path = step.root / "interim/steps/double.json"
    record = json.loads(path.read_text())
    del record["version"]
    path.write_text(json.dumps(record))
    assert step.run() is False
