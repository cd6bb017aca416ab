"""From raw archives to a scored `answer.csv`: everything is a table of boxes."""

__version__ = "0.1.0"
