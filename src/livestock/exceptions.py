"""The errors of this package that a caller may want to tell apart; all are ValueErrors, and so is a wrong argument.

A message names the file, and the row where there is one, what was expected and what was found.

>>> from livestock.exceptions import MissingResult
>>> try:
...     raise MissingResult("data/weights/fold0.safetensors: no such training yet; run 04_train first")
... except ValueError as error:
...     print(type(error).__name__, "-", error)
MissingResult - data/weights/fold0.safetensors: no such training yet; run 04_train first
"""

from __future__ import annotations


class BadData(ValueError):
    """A file or a table that a person provides does not hold what was expected.

    Raised by everything that reads such a file: the readers of labels and images, `competition.yaml`, `groups.csv`,
    hyper-parameters, `evolve.csv`, labels corrected in another tool, and the checks of an answer.
    """


class MissingResult(ValueError):
    """An earlier step has not been run. The message names the notebook or the command to run.

    Raised by a stage of the pipeline that looks for another stage's result and finds none.
    """


class StaleResult(ValueError):
    """An earlier step's result was made from other inputs than the present ones. The message says what has changed.

    Raised by a stage of the pipeline that would use such a result: weights of another split, say, or pseudo-labels made
    from other human labels. The message names the notebook or the command to run again.
    """


class UnsafeWeights(ValueError):
    """A file of weights is refused for what is in it, before anything of it runs.

    Raised for a pickle that holds anything but tensors and plain containers, for ONNX files and TorchScript that cannot
    be shown to be harmless, for an architecture with parts that are unknown or too large, and for a file that is
    broken, of another kind, or whose numbers are not finite.
    """
