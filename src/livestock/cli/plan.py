"""What `livestock plan` prints."""

from __future__ import annotations

from ..pipeline.planning import describe_plan, plan_run, say_next
from ..pipeline.preflight import check_training
from ..pipeline.prepare import ensure_data, read_data, split_data
from ..pipeline.run import Run, save_settings


def make_and_describe(run: Run, *, measures: bool) -> str:
    """The plan of a run, in words; with `measures` after reading the data and a few real steps, and kept.

    Without, from images, size and model alone, before anything was read: that is said as "about".
    """
    if measures:
        check_training(run)
        save_settings(run)
        read_data(run)
        split_data(run)
    else:
        ensure_data(run)
    run, plan, pace = plan_run(run, measures=measures)
    return f"{describe_plan(run, plan, pace)}\n{say_next(plan, pace, run.profile.session_hours)}"
