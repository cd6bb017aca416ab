"""The training loop for every family of models, and the process that it runs in."""

from .process import end_waiting, read_history, train
from .resume import AVERAGED, BEST, HISTORY
from .settings import TrainConfig

__all__ = ["AVERAGED", "BEST", "HISTORY", "TrainConfig", "end_waiting", "read_history", "train"]
