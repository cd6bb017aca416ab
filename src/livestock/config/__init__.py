"""What the competition asks (`Competition`), how big a run is (`Profile`) and where files lie (`Workspace`)."""

from .competition import Competition, read_competition
from .profile import PROFILES, Profile, get_profile
from .resources import REPOSITORY
from .skeleton import Edge, Keypoint, Skeleton
from .words import in_words, join_names
from .workspace import Workspace

__all__ = [
    "PROFILES",
    "REPOSITORY",
    "Competition",
    "Edge",
    "Keypoint",
    "Profile",
    "Skeleton",
    "Workspace",
    "get_profile",
    "in_words",
    "join_names",
    "read_competition",
]
