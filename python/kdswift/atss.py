"""ATSS: one anchor a place, positives by the statistics of overlaps."""

from __future__ import annotations

from .one_stage import OneStageDetector


class ATSS(OneStageDetector):
    """ATSS (Zhang, Chi, Yao, Lei, Li, CVPR 2020).

    Of the anchors nearest to a box on every level those are positive whose IoU is at least the mean
    plus the deviation of them all, with their centre inside the box. Losses: ``classification``
    (focal), ``bbox_regression`` (GIoU, weighted by centerness), ``bbox_ctrness``. Scores are
    probability · centerness.

    Parameters
    ----------
    backbone, num_classes, neck, image_size, class_names, seed, image_mean, image_std :
        as of `kd.RetinaNet`
    anchors : kd.Anchors or None
        One size for every level and one ratio; None: squares of 8 strides, 64 to 1024 pixels.
    head : mapping, options of the head
        convs, norm ("group"), prior, focal_alpha, focal_gamma, assigner_candidates (9 of each
        level), box_weight (2), centerness_weight (1), score_threshold, nms, top_candidates,
        max_detections

    What is not given is as published (mmdetection's atss_r50_fpn_1x_coco); classes are counted with
    the background, whose column of logits stays unused. Raises ``ArgumentError`` naming the option.
    """

    kind = "atss"
