"""GFL: class scores that are the quality of the box, and sides that are distributions."""

from __future__ import annotations

from .one_stage import OneStageDetector


class GFL(OneStageDetector):
    """Generalized Focal Loss (Li, Wang, Wu, Chen, Hu, Li, Tang, Yang, NeurIPS 2020).

    Positives as in `kd.ATSS`. Losses: ``classification`` (quality focal loss towards the IoU of the
    predicted box), ``bbox_regression`` (GIoU) and ``bbox_distribution`` (distribution focal loss),
    the last two weighted by the class probability. The taps ``head.box_distribution`` (N, 4 bins,
    H, W) hold the logits of the distances 0, 1, …, reg_max (in strides) to left, top, right,
    bottom, each side's together: what localization distillation compares.

    Parameters
    ----------
    backbone, num_classes, neck, image_size, class_names, seed, image_mean, image_std :
        as of `kd.RetinaNet`
    anchors : kd.Anchors or None
        One size for every level and one ratio, for the choice of positives; None: squares of 8
        strides.
    head : mapping, options of the head
        convs, norm ("group"), prior, quality_beta (2), reg_max (16), assigner_candidates (9 of each
        level), box_weight (2), distribution_weight (0.25), score_threshold, nms, top_candidates,
        max_detections

    What is not given is as published (mmdetection's gfl_r50_fpn_1x_coco); classes are counted with
    the background, whose column of logits stays unused. Raises ``ArgumentError`` naming the option.
    """

    kind = "gfl"
