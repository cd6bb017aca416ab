"""Evolution: YOLOv5's genetic search and its rivals over a meta subset, in a study that survives lost sessions."""

from .genetic import GeneticSampler, choose_parent, mutate
from .report import add_generations, importances, read_evolve_csv, trials_table, write_evolve_csv
from .samplers import PRUNERS, SAMPLERS
from .search import FITNESS, FailedTrialError, Search, load, run_trials
from .space import GENES, Gene, check_meta, make_meta, write_hyp

__all__ = [
    "FITNESS",
    "GENES",
    "PRUNERS",
    "SAMPLERS",
    "FailedTrialError",
    "Gene",
    "GeneticSampler",
    "Search",
    "add_generations",
    "check_meta",
    "choose_parent",
    "run_trials",
    "importances",
    "load",
    "make_meta",
    "mutate",
    "read_evolve_csv",
    "trials_table",
    "write_evolve_csv",
    "write_hyp",
]
