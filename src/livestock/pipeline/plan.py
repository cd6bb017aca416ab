"""The plan: what a budget of hours can afford. All pure functions.

With a budget the stages come first that every answer needs: the model of a fold, the final model, the answer. What
decides something, the search (03_evolve) and the comparison of labels (06_silver), shares what is left. Each takes the
cheapest proxy that is known to choose well, then less of everything in a stated order, and where that does not fit
either, it is not tried, which the plan says.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import Profile
from ..search.proxies import Proxy, unfrozen_share
from .pace import Pace
from .stages import STAGES, TRIAL_DATA, Piece, Sizes, list_pieces, sum_seconds

DECIDES = {"03_evolve": "hyper-parameters, once HYP (--hyp) names evolved.yaml", "06_silver": "labels to train with"}
SEARCH_SHARE = 0.5  # of what is left once the needed stages are paid; labels get the rest
LEAST_TRIALS, LEAST_SEEDS, LEAST_EPOCHS = 8, 2, 3  # fewer show nothing
SCALED = ("search_imgsz", "trial_epochs", "search_freeze")  # of a trial, by a proxy
# What a piece that is done fixes: another value would make it again.
FIXED = {("04_train", "fold"): ("epochs",), ("03_evolve", "trial"): SCALED}


@dataclass(frozen=True)
class Plan:
    """What a budget leads to: changed fields of the profile, notebooks to leave out, and why, in sentences.

    `shares` has the most hours that the trials of 03 and the students of 06 may take, however long they were planned.
    """

    pieces: list[Piece]
    changes: dict[str, Any] = field(default_factory=dict)
    skip: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)


def fit(
    profile: Profile, sizes: Sizes, pace: Pace, proxies: Sequence[Proxy] = (), chosen: Collection[str] = (),
) -> Plan:
    """What of a run fits into the profile's `budget_hours`; everything, unchanged, where that is 0 or enough.

    `proxies` are those known to choose as well as a full training, `chosen` the fields of the profile that a person has
    set, which stay. Less is taken in this order until it fits: of the search, the cheapest trials that are known to
    choose well (smaller images, fewer epochs, frozen layers), then fewer of them; of the comparison of labels, fewer
    seeds; then neither is tried, and the needed trainings get fewer epochs. The budget is for what is not done; trials
    and trainings that are done with the profile's values fix these, and a stage that is done stays.
    """
    whole, budget = list_pieces(profile, sizes), 3600 * profile.budget_hours
    if not budget or (sum_seconds(whole, pace) <= budget and not say_too_long(whole, pace, profile)):
        return Plan(whole, shares=_find_shares(whole, pace, budget) if budget else {})
    chosen = {*chosen, *(name for kind, names in FIXED.items() if sizes.done.get(kind) for name in names)}
    needed = [stage for stage in STAGES if stage not in DECIDES]
    left = budget - sum_seconds(whole, pace, needed)
    if left <= 0:
        return _shorten(profile, sizes, pace, chosen)
    changes, reasons = _fit_search(profile, sizes, pace, SEARCH_SHARE * left, proxies, chosen)
    skip = [] if changes is not None else ["03_evolve"]
    searched = replace(profile, **(changes or {}))
    if not skip:
        left -= sum_seconds(list_pieces(searched, sizes), pace, ["03_evolve"])
    n_seeds = _fit_seeds(searched, sizes, pace, left, chosen)
    if n_seeds is None:
        skip.append("06_silver")
        least = _least_seeds(profile, chosen)
        reasons.append(f"06_silver: not tried: {left / 3600:.1f} hours are left for it, and with {least} "
                       f"seed{'s' * (least > 1)} it takes {_silver_seconds(searched, sizes, pace, least) / 3600:.1f}; "
                       "people's labels are taken")
    elif n_seeds != profile.n_seeds:
        reasons.append(f"06_silver: {n_seeds} seeds in place of {profile.n_seeds}")
    found = {**(changes or {}), **({"n_seeds": n_seeds} if n_seeds and n_seeds != profile.n_seeds else {})}
    pieces = list_pieces(replace(profile, **found), sizes, skip)
    return Plan(pieces, found, skip, reasons, _find_shares(pieces, pace, budget))


def _find_shares(pieces: Sequence[Piece], pace: Pace, budget: float) -> dict[str, float]:
    """Hours for the trials and for the students, finished ones included, each with half of the unplanned hours."""
    spare = max(budget - sum_seconds(pieces, pace), 0.0) / 2
    return {piece.stage: round((piece.n * piece.seconds(pace) + spare) / 3600, 4)
            for piece in pieces if (piece.stage, piece.what) in (("03_evolve", "trial"), ("06_silver", "student"))}


def _shorten(profile: Profile, sizes: Sizes, pace: Pace, chosen: Collection[str]) -> Plan:
    """Neither search nor silver labels, unless they are done, and as many epochs as fit."""
    whole, budget = list_pieces(profile, sizes), 3600 * profile.budget_hours
    skip = [stage for stage in DECIDES if sum_seconds(whole, pace, [stage])]
    reasons = [f"{stage}: not tried: the trainings that an answer needs take the whole budget; "
               f"{'the values of the profile' if stage == '03_evolve' else 'human labels'} are taken" for stage in skip]
    epochs = 0 if "epochs" in chosen else max(
        (n for n in range(1, profile.epochs + 1)
         if sum_seconds(list_pieces(replace(profile, epochs=n), sizes, skip), pace) <= budget), default=0)
    if not epochs:
        n = profile.epochs if "epochs" in chosen else 1
        pieces = list_pieces(replace(profile, epochs=n), sizes, skip)
        folds, way_out = ("one fold", "or smaller images") if sizes.folds == 1 else (
            f"{sizes.folds} folds", "smaller images or fewer folds")
        reasons.append(f"the budget of {profile.budget_hours:g} hours is too small: {folds}, the final model and the "
                       f"answer take {sum_seconds(pieces, pace) / 3600:.1f} hours with {n} epoch{'s' * (n > 1)}, which "
                       f"are planned all the same; take a smaller model{' ' if sizes.folds == 1 else ', '}{way_out}")
        return Plan(pieces, {"epochs": n} if n != profile.epochs else {}, skip, reasons)
    changes: dict[str, Any] = {"epochs": epochs} if epochs != profile.epochs else {}
    if changes:
        reasons.append(f"04_train, 07_final: {epochs} epochs in place of {profile.epochs}")
    return Plan(list_pieces(replace(profile, **changes), sizes, skip), changes, skip, reasons)


def _fit_search(
    profile: Profile, sizes: Sizes, pace: Pace, seconds: float, proxies: Sequence[Proxy], chosen: Collection[str]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Changes with which the search fits into so many seconds, None where it cannot; and what is to be said."""
    usual = sum_seconds(list_pieces(profile, sizes), pace, ["03_evolve"])
    if usual <= seconds and not say_too_long(list_pieces(profile, sizes), pace, profile):
        return {}, []
    scales = list_search_scales(profile, proxies, chosen)
    said = [] if len(scales) > 1 or {*SCALED} & {*chosen} else [
        "03_evolve: no cheaper trial is known to choose as well as a whole training, so trials stay as large as the "
        "profile has them"]
    changes = scales[-1]  # the cheapest
    scaled = replace(profile, **changes)
    pieces, n_done = list_pieces(replace(scaled, trials=1), sizes), sizes.done.get(("03_evolve", "trial"), 0)
    if too_long := say_too_long(pieces, pace, profile):
        return None, [*said, f"03_evolve: not tried: {too_long}; the values of the profile are taken"]
    trial = next(piece for piece in pieces if piece.what == "trial")
    one, fixed = trial.seconds(pace), sum_seconds(pieces, pace, ["03_evolve"]) - trial.left(pace)
    n_least = profile.trials if "trials" in chosen else min(LEAST_TRIALS, profile.trials)
    most = min(profile.trials, n_done + max(math.floor((seconds - fixed) / one), 0))
    if most < n_least or fixed + max(most - n_done, 0) * one > seconds:
        least = fixed + max(n_least - n_done, 0) * one
        return None, [*said, f"03_evolve: not tried: its share is {seconds / 3600:.1f} hours, and {n_least} trials "
                      f"take {least / 3600:.1f}; the values of the profile are taken"]
    if most != profile.trials:
        changes = {**changes, "trials": most}
    before = {**vars(profile), "search_imgsz": profile.search_imgsz or profile.imgsz}
    words = ", ".join(f"{name} {value} in place of {before[name]}" for name, value in changes.items())
    return changes, [*said, f"03_evolve: {words}"]


def say_too_long(pieces: Sequence[Piece], pace: Pace, profile: Profile) -> str:
    """Why no trial could finish: it saves no checkpoint, so after a cut it starts again. Empty if it fits a session."""
    hours = max((piece.seconds(pace) / 3600 for piece in pieces if piece.what == "trial" and piece.done < piece.n),
                default=0.0)
    if hours <= profile.session_hours:
        return ""
    return (f"a trial takes {hours:.1f} hours, more than a session of {profile.session_hours:g}, and one that is cut "
            "off begins again")


def list_search_scales(profile: Profile, proxies: Sequence[Proxy], chosen: Collection[str]) -> list[dict[str, Any]]:
    """Changes of the profile that make its trials cheaper, the dearest first: none, then those of known proxies.

    A trial trains on half of the training images and for fewer epochs than a whole training. A proxy is used only if it
    was measured with no more data and no more epochs than the trial has.

    >>> from livestock.config import get_profile
    >>> small, both = Proxy("imgsz", imgsz=0.5), Proxy("all", imgsz=0.5, data=0.5, epochs=1 / 3)
    >>> list_search_scales(get_profile("colab"), [small], []), list_search_scales(get_profile("colab"), [both], [])
    ([{}], [{}, {'search_imgsz': 640}])
    """
    found: dict[float, dict[str, Any]] = {1.0: {}}
    for proxy in proxies:
        if proxy.data > TRIAL_DATA or proxy.scale_epochs(profile.epochs) > profile.trial_epochs:
            continue
        fields = {"search_imgsz": proxy.scale_imgsz(profile.imgsz),
                  "trial_epochs": min(profile.trial_epochs,
                                      max(proxy.scale_epochs(profile.epochs), min(LEAST_EPOCHS, profile.epochs))),
                  "search_freeze": proxy.freeze}
        usual = {"search_imgsz": profile.imgsz, "trial_epochs": profile.trial_epochs, "search_freeze": 0.0}
        changes = {name: value for name, value in fields.items() if name not in chosen and value != usual[name]}
        share = ((fields["search_imgsz"] / profile.imgsz) ** 2 if "search_imgsz" in changes else 1.0) * (
            fields["trial_epochs"] / profile.trial_epochs if "trial_epochs" in changes else 1.0) * (
            unfrozen_share(changes.get("search_freeze", 0.0)))
        found.setdefault(share, changes)
    return [found[share] for share in sorted(found, reverse=True)]


def _fit_seeds(profile: Profile, sizes: Sizes, pace: Pace, seconds: float, chosen: Collection[str]) -> int | None:
    """As many seeds as fit, None where too few do."""
    fitting = [n for n in range(_least_seeds(profile, chosen), profile.n_seeds + 1)
               if _silver_seconds(profile, sizes, pace, n) <= seconds]
    return max(fitting, default=None)


def _least_seeds(profile: Profile, chosen: Collection[str]) -> int:
    return profile.n_seeds if "n_seeds" in chosen else min(LEAST_SEEDS, profile.n_seeds)


def _silver_seconds(profile: Profile, sizes: Sizes, pace: Pace, n_seeds: int) -> float:
    return sum_seconds(list_pieces(replace(profile, n_seeds=n_seeds), sizes), pace, ["06_silver"])
