"""Sentences about mistakes: what costs most, where they are, which classes are confused."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .words import NOTHING, count

FEW_BOXES = 10  # a bin with fewer true boxes has a rate by chance alone
CLEAR_GAP = 0.02  # mAP: causes nearer to each other cannot be ranked


def describe_causes(costs: pd.DataFrame) -> str:
    """Which cause costs most, and by how much more than the next; `costs` of `cost_of_causes`."""
    ranked = costs.sort_values("gain", ascending=False, kind="stable")
    if ranked.empty or not ranked["errors"].sum():
        return "No error was found, so no cause costs anything."
    first, gain = ranked.index[0], ranked["gain"].iloc[0]
    if gain <= 0:
        return f"{count(int(ranked['errors'].sum()), 'error')} were found, and no single cause lowers mAP by itself."
    words = (f"{first} costs most: without it mAP would be {gain:.3f} higher "
             f"({count(int(ranked['errors'].iloc[0]), 'error')})")
    if len(ranked) < 2 or ranked["gain"].iloc[1] <= 0:
        return f"{words}; no other cause costs anything by itself."
    second, next_gain = ranked.index[1], ranked["gain"].iloc[1]
    near = ", too near to rank them" if gain - next_gain < CLEAR_GAP else ""
    return f"{words}, then {second} with {next_gain:.3f}{near}."


def describe_error_rates(rates: pd.DataFrame, what: str) -> str:
    """In which bin of `what`, of which class, most true boxes are missed, against the best bin of that class.

    Bins with fewer than ten true boxes are passed over. `rates` of `error_rates`.
    """
    known = rates[(rates["what"] == what) & (rates["n_truth"] >= FEW_BOXES)].dropna(subset=["missed"])
    if known.empty:
        return f"No {what} has {FEW_BOXES} true boxes of a class, so no rate can be believed."
    if known["missed"].max() == 0:
        return f"No true box is missed in any {what} with at least {FEW_BOXES} true boxes."
    worst = known.loc[known["missed"].idxmax()]
    own = known[known["label"] == worst["label"]]
    words = (f"{worst['label']}, {worst['bin']}: {worst['missed']:.0%} of {count(worst['n_truth'], 'true box')} "
             f"missed, "
             f"the most of any {what}")
    if len(own) < 2:
        return f"{words}; the class has no other bin to compare with."
    best = own.loc[own["missed"].idxmin()]
    if best["missed"] == worst["missed"]:
        return f"{words}; no bin of the class differs."
    return f"{words}; {best['bin']} of the same class: {best['missed']:.0%} of {best['n_truth']:,}."


def describe_confusion(confusion: pd.DataFrame) -> str:
    """How many true boxes are found, which two classes are confused most; `confusion` of `confusion_matrix`."""
    labels = [label for label in confusion.index if label in confusion.columns]
    n_truth = int(confusion.loc[labels].to_numpy().sum())
    if not n_truth:
        return "There is no true box to confuse."
    found = confusion.loc[labels, labels].to_numpy()
    words = f"{np.trace(found) / n_truth:.0%} of {count(n_truth, 'true box')} are found under their own class"
    wrong = found - np.diag(np.diag(found))
    if not wrong.sum():
        return f"{words}, and none under another."
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    return (f"{words}; the commonest confusion is {labels[row]} taken for {labels[column]}, "
            f"{count(int(wrong[row, column]), 'time')}.")


def describe_group_errors(groups: pd.DataFrame) -> str:
    """How unlike groups are in their errors for each true box; `groups` of `group_errors`."""
    known = groups.dropna(subset=["rate"])
    if known.empty:
        return NOTHING
    if len(known) < 2:
        return f"There is one group only, with {known['rate'].iloc[0]:.2f} errors for each true box."
    total, worst = int(groups["errors"].sum()), groups.loc[known["rate"].idxmax()]
    share = f", {worst['errors'] / total:.0%} of all errors" if total else ""
    return (f"Group {worst['name']} is worst with {worst['rate']:.2f} errors for each true box{share}; the median of "
            f"{count(len(known), 'group')} is {known['rate'].median():.2f}.")


def describe_suspects(suspects: pd.DataFrame, sure: pd.DataFrame, n_truth: int) -> str:
    """How many labels are likely missing, as a share of the true ones; `sure` are the suspects that are counted."""
    if suspects.empty:
        return "No box is suspected of being a missing label."
    most = f", most of them {sure['label'].value_counts().idxmax()}" if len(sure) else ""
    share = f" ({len(sure) / n_truth:.0%} of the {n_truth:,} true ones{most})" if n_truth else ""
    return f"{count(len(sure), 'label')} are likely missing{share}, of {count(len(suspects), 'suspect')} in all."


def describe_worst_images(errors: pd.DataFrame, n_shown: int) -> str:
    """Which share of all errors the worst images have; `errors` of `image_errors`, most errors first."""
    total = int(errors["errors"].sum()) if len(errors) else 0
    if not total:
        return "No image has an error."
    top = errors["errors"].iloc[:n_shown]
    return (f"The {count(len(top), 'image')} with most errors have {top.sum() / total:.0%} of all {total:,}; "
            f"{count(int((errors['errors'] == 0).sum()), 'image')} of {len(errors):,} have none.")


def describe_agreement(truth: pd.DataFrame, boxes: pd.DataFrame) -> str:
    """Predicted boxes for each true one, of the class that is furthest from one.

    >>> one, two = pd.DataFrame({"label": ["pig"]}), pd.DataFrame({"label": ["pig", "pig"]})
    >>> describe_agreement(one, two)
    'pig is furthest from agreement: 2 predicted boxes for 1 true one.'
    """
    counts = pd.DataFrame({"true": truth["label"].value_counts(), "predicted": boxes["label"].value_counts()}).fillna(0)
    counts = counts[counts["true"] > 0]
    if counts.empty:
        return "There is no true box to agree with."
    label = ((counts["predicted"] + 1) / (counts["true"] + 1)).map(np.log).abs().idxmax()
    true, predicted = counts.loc[label].astype(int)
    if true == predicted:
        return "Every class has as many predicted boxes as true ones."
    return (f"{label} is furthest from agreement: {count(predicted, 'predicted box')} for {true:,} true "
            f"one{'s' * (true != 1)}.")
