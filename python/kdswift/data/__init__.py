"""Data sets, batches, and the checks that images and targets pass before they are used."""

from .dataset import Dataset
from .digits import DigitScenes
from .images import as_image, image_size, pad_batch, read_image
from .loader import Batch, Loader
from .pseudo_labels import PseudoLabels
from .targets import check_target
from .voc import VOC, VOC_CLASSES

__all__ = [
    "VOC",
    "VOC_CLASSES",
    "Batch",
    "Dataset",
    "DigitScenes",
    "Loader",
    "PseudoLabels",
    "as_image",
    "check_target",
    "image_size",
    "pad_batch",
    "read_image",
]
