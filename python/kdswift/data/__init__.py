"""Data sets, batches, and the checks that images and targets pass before they are used."""

from .coco import COCO
from .dataset import Dataset
from .digits import DigitScenes
from .ilsvrc import ILSVRCDet
from .images import as_image, image_size, pad_batch, read_image
from .kitti import KITTI, KITTI_CLASSES
from .loader import Batch, Loader
from .pseudo_labels import PseudoLabels
from .targets import check_target
from .voc import VOC, VOC_CLASSES
from .yolo import YOLO

__all__ = [
    "COCO",
    "KITTI",
    "KITTI_CLASSES",
    "VOC",
    "VOC_CLASSES",
    "YOLO",
    "Batch",
    "Dataset",
    "DigitScenes",
    "ILSVRCDet",
    "Loader",
    "PseudoLabels",
    "as_image",
    "check_target",
    "image_size",
    "pad_batch",
    "read_image",
]
