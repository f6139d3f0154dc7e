"""Scores of detectors: COCO AP by pycocotools, PASCAL VOC's and KITTI's written here."""

from .metrics import METRICS, Metrics, evaluate, evaluate_detections, precision_recall

__all__ = ["METRICS", "Metrics", "evaluate", "evaluate_detections", "precision_recall"]
