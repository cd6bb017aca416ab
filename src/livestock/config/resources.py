"""Where the files lie that come with the code: `hyp/`, `notebooks/`, `competition.yaml`, `keypoints.yaml`.

They are data of the package, so that an installed wheel has them too. In a git checkout the folder `resources` holds
links to the same files at its top, where people look for them.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

RESOURCES = Path(str(files("livestock"))) / "resources"
_ABOVE = Path(__file__).resolve().parents[3]
CHECKOUT = _ABOVE if (_ABOVE / "pyproject.toml").is_file() else None  # None: installed from a wheel
REPOSITORY = CHECKOUT or RESOURCES  # both hold these by the same names


def resource(name: str) -> Path:
    """A file or folder that comes with the code, such as `hyp/demo.yaml`. Raises FileNotFoundError if it is not there.

    >>> resource("competition.yaml").name
    'competition.yaml'
    """
    path = (RESOURCES / name).resolve()  # in a checkout the file at its top, not the link
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected to come with the package, found nothing; install it again")
    return path


def require_checkout(what: str) -> Path:
    """The git checkout that this code runs from. Raises ValueError, saying `what` needs it, for an installed wheel."""
    if CHECKOUT is None:
        raise ValueError(f"{what}: expected a git checkout of the project, found the installed package {RESOURCES}")
    return CHECKOUT
