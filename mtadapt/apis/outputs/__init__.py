"""What the inferencer writes: one file a format, all of them frame by frame."""

from mtadapt.apis.outputs.base import Output, OutputSet, check_free
from mtadapt.apis.outputs.bdd100k import BDD100KSubmission
from mtadapt.apis.outputs.coco import CocoResults
from mtadapt.apis.outputs.factory import FORMATS, open_outputs, output_paths
from mtadapt.apis.outputs.masks import MaskFolder
from mtadapt.apis.outputs.pictures import Pictures
from mtadapt.apis.outputs.scalabel import ScalabelFile, scalabel_frame

__all__ = [
    "FORMATS",
    "BDD100KSubmission",
    "CocoResults",
    "MaskFolder",
    "Output",
    "OutputSet",
    "Pictures",
    "ScalabelFile",
    "check_free",
    "open_outputs",
    "output_paths",
    "scalabel_frame",
]
