"""RetinaNet: one stage, focal loss over all anchors of a feature pyramid."""

from __future__ import annotations

from .one_stage import OneStageDetector


class RetinaNet(OneStageDetector):
    """RetinaNet (Lin, Goyal, Girshick, He, Dollár, ICCV 2017), as torchvision has it.

    Names of weights, losses and every default are torchvision's: its state_dict loads unchanged.

    Parameters
    ----------
    backbone : kd.backbones.…(), or a name
    num_classes : int
        The background counted, as in torchvision.
    neck : "fpn" or kd.FPN(…)
        Levels P3 to P7: the backbone's maps but its finest, and two convolutions above them.
    anchors : kd.Anchors or None
        None: x, x·2^(1/3), x·2^(2/3) for x = 32, 64, …, 512, one x a level; ratios 1:2, 1:1, 2:1.
        Others list as many sizes for every level, fine to coarse.
    image_size : (short side, most of the long side); None: (800, 1333)
        Images are scaled to this before anything else; boxes come back in the original's pixels.
    class_names : list of str, index 0 ``"background"``; taken from the data when not given
    seed : draws the first weights; None counts on from `kd.seed`
    image_mean, image_std : three numbers each, of pixels in [0, 1]
    head : mapping, options of the head
        convs, norm (None's name is "none"; v2 of torchvision has "group"), prior, focal_alpha,
        focal_gamma, positive_iou, negative_iou, box_loss ("l1", "smooth_l1" or "giou"),
        smooth_l1_beta, score_threshold, nms, top_candidates, max_detections

    What is not given has torchvision's value. Raises ``ArgumentError`` naming the option.
    """

    kind = "retinanet"
