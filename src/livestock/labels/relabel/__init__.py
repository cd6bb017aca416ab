"""Labels out to an annotation tool and back: what people correct there replaces the raw labels, which stay."""

from .changes import compare_labels, count_changes
from .describe import describe_import
from .export import describe_export, export_suspects
from .importing import Imported, import_labels
from .sheets import FORMATS, Sheet
from .store import apply_relabels, describe_relabels, read_relabels, relabels_path, relabels_tag, write_relabels

__all__ = [
    "FORMATS",
    "Imported",
    "Sheet",
    "apply_relabels",
    "compare_labels",
    "count_changes",
    "describe_export",
    "describe_import",
    "describe_relabels",
    "export_suspects",
    "import_labels",
    "read_relabels",
    "relabels_path",
    "relabels_tag",
    "write_relabels",
]
