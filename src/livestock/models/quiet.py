"""Imports of libraries that change settings of the whole process: afterwards these are as they were."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager


@contextmanager
def kept_settings(environment: Mapping[str, str]) -> Iterator[None]:
    """For as long as it takes the environment has these variables, too; warnings are not shown.

    Put back are the environment, `sys.path`, the warnings that are shown, how numpy, pandas and torch print, OpenCV's
    threads, and the functions that read and write files in OpenCV, Pillow and torch, which a library may replace.
    """
    import cv2
    import numpy as np
    import pandas as pd
    import torch
    from PIL import Image
    from torch._tensor_str import get_printoptions  # there is no public way to read them

    path, before = sys.path[:], dict(os.environ)
    n_threads, torch_printing = cv2.getNumThreads(), get_printoptions()
    functions = [(module, name, getattr(module, name)) for module, names in (
        (cv2, ("imread", "imwrite", "imshow")), (Image, ("open",)), (torch, ("load", "save"))) for name in names]
    try:
        with ExitStack() as stack:
            stack.enter_context(np.printoptions())
            stack.enter_context(pd.option_context("display.max_columns", pd.options.display.max_columns))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # such as of escapes in a library's text that Python 3.12 finds fault with
            os.environ.update(environment)
            yield
    finally:
        for module, name, function in functions:
            setattr(module, name, function)
        torch.set_printoptions(**torch_printing)
        cv2.setNumThreads(n_threads)
        sys.path[:] = path
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
