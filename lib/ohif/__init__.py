"""OHIF as MONAI Label ships it, repaired while its files are served."""

from lib.ohif.repairs import REPAIRS, Repair
from lib.ohif.viewer import Viewer

__all__ = ["REPAIRS", "Repair", "Viewer"]
