"""The table of what a reader left out or changed, and why."""

from __future__ import annotations

import pandas as pd

LEFT_OUT_COLUMNS = ["file", "image_id", "reason", "detail"]


class Report:
    """Collects the lines of `left_out`."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []

    def add(self, reason: str, file: str, image_id: str = "", detail: str = "") -> None:
        """Notes one file, image or box. Half surrogates, which JSON can hold and Parquet cannot, are spelt out."""
        row = (text.encode("utf-8", "backslashreplace").decode() for text in (file, image_id, reason, detail))
        self.rows.append((*row,))

    def table(self) -> pd.DataFrame:
        """All lines in order of file and reason."""
        table = pd.DataFrame(self.rows, columns=LEFT_OUT_COLUMNS, dtype=str)
        return table.sort_values(["file", "image_id", "reason"], kind="stable", ignore_index=True)
