"""FCOS: every place of a feature pyramid tells the distances to the sides of its object."""

from __future__ import annotations

from .one_stage import OneStageDetector


class FCOS(OneStageDetector):
    """FCOS (Tian, Shen, Chen, He, ICCV 2019; with the improvements of 2020), as torchvision has it.

    Names of weights, losses and every default are those of ``fcos_resnet50_fpn``: its state_dict
    loads unchanged. A place is positive near the centre of a box whose farthest side fits the
    level. Losses: ``classification`` (focal), ``bbox_regression`` (GIoU), ``bbox_ctrness``; each a
    sum over the batch divided by its positives. Scores are sqrt(probability · centerness).

    Parameters
    ----------
    backbone, num_classes, neck, image_size, class_names, seed, image_mean, image_std :
        as of `kd.RetinaNet`
    anchors : kd.Anchors or None
        One size for every level and ratio 1: the unit of its distances; None: strides 8 to 128.
    head : mapping, options of the head
        convs, norm ("group"), prior, focal_alpha, focal_gamma, center_radius (in anchor sizes,
        1.5), score_threshold, nms, top_candidates, max_detections

    What is not given has torchvision's value. Raises ``ArgumentError`` naming the option.
    """

    kind = "fcos"
