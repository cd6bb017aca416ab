"""What `livestock models` prints: what can be trained, how good it is on COCO, and what fits the limit of weights."""

from __future__ import annotations

import math

import typer

from ..config import Competition
from ..config.models import read_models
from ..exceptions import BadData


def print_models(competition: Competition) -> None:
    """Prints the table, the best on COCO first, and what to do next.

    Raises BadData where not one of the models fits the competition's limit.
    """
    limit, table = competition.weight_limit_bytes, read_models()
    table["fits"] = table["MB"] * 1e6 <= limit
    typer.echo(f"{'--weights':29}{'--family':11}{'MB':>6}  {f'fits {limit / 1e6:g} MB':12}{'AP':>6}{'AP75':>6}"
               f"{'px':>6}  {'hyp':15}{'licence':13} note")
    for row in table.sort_values(["AP75", "AP", "MB"], ascending=[False, False, True]).to_dict("records"):
        figures = [f"{row[name]:6.1f}" if not math.isnan(row[name]) else "     -" for name in ("AP", "AP75")]
        side = "     -" if math.isnan(row["imgsz"]) else f"{row['imgsz']:6.0f}"
        typer.echo(f"{row['name']:29}{row['family']:11}{row['MB']:6.1f}  {'yes' if row['fits'] else 'no':12}"
                   f"{figures[0]}{figures[1]}{side}  {row['hyp']:15}{row['licence']:13} {row['note']}".rstrip())
    typer.echo("AP and AP75: COCO's val2017, percent, as published at that size in pixels; of other data a hint. MB: "
               "in half precision, with 80 classes (obj365: 365); heatmap, topdown: one keypoint, at 256 px")
    if not table["fits"].any():
        smallest = table.loc[table["MB"].idxmin()]
        raise BadData(f"weight_limit_bytes: {limit:,} is less than any model needs; the smallest is {smallest['name']} "
                      f"of {smallest['family']} with {smallest['MB']:.1f} MB in half precision")
    typer.echo("train a detector with: livestock run --data PATH --profile colab --family FAMILY --weights NAME --hyp "
               "hyp/FILE --set imgsz=PX; or --profile colab_best")
