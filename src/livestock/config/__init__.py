"""What the competition asks (`Competition`), how big a run is (`Profile`), where files lie (`Workspace`) and what a run
was told (`RunSettings`)."""

from .competition import Competition, find_competition, read_competition
from .overrides import parse_overrides, split_overrides
from .profile import Profile, get_profile, known_profiles
from .resources import CHECKOUT, REPOSITORY, require_checkout, resource
from .settings import RunSettings, read_settings, settings_path, settings_text
from .skeleton import Edge, Keypoint, Skeleton
from .suggest import FoundPoints, suggest_skeleton
from .words import in_words, join_names, meant
from .workspace import Workspace

__all__ = [
    "CHECKOUT",
    "REPOSITORY",
    "Competition",
    "Edge",
    "FoundPoints",
    "Keypoint",
    "Profile",
    "Skeleton",
    "RunSettings",
    "Workspace",
    "find_competition",
    "get_profile",
    "in_words",
    "join_names",
    "known_profiles",
    "meant",
    "parse_overrides",
    "read_competition",
    "read_settings",
    "require_checkout",
    "resource",
    "settings_path",
    "settings_text",
    "split_overrides",
    "suggest_skeleton",
]
