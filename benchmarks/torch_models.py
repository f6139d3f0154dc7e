"""The benchmarked detectors in PyTorch: same layers and sizes, torchvision's code around them.

torchvision's proposal network has one sigmoid logit per anchor where ours has two softmax logits;
everything else that takes time is alike.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign


class Block(nn.Module):
    """conv-bn-relu, conv-bn, add, relu."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + identity)


def resnet_small(state: dict) -> nn.Module:
    """The backbone of these weights ("backbone.conv1.weight", …), read from their shapes."""
    stem = state["backbone.conv1.weight"].shape[0]
    layers: list[nn.Module] = [
        nn.Conv2d(3, stem, 3, 2, 1, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(inplace=True),
    ]
    stage = 1
    while f"backbone.layer{stage}.0.conv1.weight" in state:
        block = 0
        while f"backbone.layer{stage}.{block}.conv1.weight" in state:
            outputs, inputs = state[f"backbone.layer{stage}.{block}.conv1.weight"].shape[:2]
            reduced = f"backbone.layer{stage}.{block}.downsample.0.weight" in state
            layers.append(Block(inputs, outputs, 2 if reduced and outputs != inputs else 1))
            block += 1
        stage += 1
    body = nn.Sequential(*layers)
    body.out_channels = outputs
    return body


class BoxHead(nn.Module):
    """Flatten, then fully connected layers with ReLU."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def detector(ours, channels_last: bool) -> nn.Module:
    """The same detector as `ours` (a kdswift Faster R-CNN)."""
    state = dict(ours.state_dict())
    config = ours.configuration
    if config["backbone"]["name"] == "vgg16":
        body = torchvision.models.vgg16(weights=None).features[:-1]
        body.out_channels = 512
    else:
        body = resnet_small(state)
    ratios = tuple(float(r) for r in config["anchor_ratios"])
    anchors = AnchorGenerator((tuple(config["anchor_sizes"]),), (ratios,))
    hidden = [state[k].shape for k in state if ".box_head." in k and k.endswith("weight")]
    widths = [hidden[0][1]] + [shape[0] for shape in hidden]
    side = round((hidden[0][1] / body.out_channels) ** 0.5)
    rpn, roi = config["rpn"], config["roi"]
    head = RPNHead(body.out_channels, anchors.num_anchors_per_location()[0])
    width = state["rpn.head.conv.weight"].shape[0]
    head.conv = nn.Sequential(
        nn.Sequential(nn.Conv2d(body.out_channels, width, 3, padding=1), nn.ReLU(inplace=True))
    )
    head.cls_logits = nn.Conv2d(width, anchors.num_anchors_per_location()[0], 1)
    head.bbox_pred = nn.Conv2d(width, 4 * anchors.num_anchors_per_location()[0], 1)
    model = FasterRCNN(
        body,
        min_size=config["image_min"],
        max_size=config["image_max"],
        rpn_anchor_generator=anchors,
        rpn_head=head,
        rpn_pre_nms_top_n_train=rpn["pre_nms_train"],
        rpn_pre_nms_top_n_test=rpn["pre_nms_test"],
        rpn_post_nms_top_n_train=rpn["post_nms_train"],
        rpn_post_nms_top_n_test=rpn["post_nms_test"],
        rpn_batch_size_per_image=rpn["batch"],
        box_roi_pool=MultiScaleRoIAlign(["0"], side, roi["sampling_ratio"]),
        box_head=BoxHead(widths),
        box_predictor=FastRCNNPredictor(widths[-1], config["num_classes"]),
        box_batch_size_per_image=roi["batch"],
        box_nms_thresh=roi["nms"],
        box_detections_per_img=roi["max_detections"],
    )
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        model.backbone.register_forward_pre_hook(
            lambda _, inputs: (inputs[0].contiguous(memory_format=torch.channels_last),)
        )
    return model
