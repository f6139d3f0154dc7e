"""The benchmarked Faster R-CNN in PyTorch: same layers, anchors, sampling, losses and weight names.

Boxes, matching, sampling, NMS and RoIAlign are torchvision's. Built from the configuration and the
state of a kdswift detector, so that both compute the same thing. What PyTorch users would cache
(anchors) is cached.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, nms, roi_align


class Block(nn.Module):
    """conv-bn-relu, conv-bn, add, relu."""

    def __init__(self, inputs: int, outputs: int, stride: int, reduced: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if reduced:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(y + identity, inplace=True)


class ResNetSmall(nn.Module):
    """A stem at stride 2 and layers of blocks; strides 4, 8, 8 as the default has them."""

    stride = 8

    def __init__(self, state: dict) -> None:
        super().__init__()
        stem = len(state["backbone.conv1.weight"])
        self.conv1 = nn.Conv2d(3, stem, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        for stage in (1, 2, 3):
            blocks, first = [], 2 if stage < 3 else 1
            while f"backbone.layer{stage}.{len(blocks)}.conv1.weight" in state:
                name = f"backbone.layer{stage}.{len(blocks)}"
                outputs, inputs = state[f"{name}.conv1.weight"].shape[:2]
                reduced = f"{name}.downsample.0.weight" in state
                blocks.append(Block(inputs, outputs, 1 if blocks else first, reduced))
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.layer3(self.layer2(self.layer1(x)))


class VGG16(nn.Module):
    """Thirteen convolutions; pools round up, as the published detector's do."""

    stride = 16

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage, (outputs, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
            if stage:
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
        self.features = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


class FasterRCNN(nn.Module):
    """Like kdswift's: `losses` for training, `detect` for inference."""

    def __init__(self, config: dict, state: dict, channels_last: bool) -> None:
        super().__init__()
        self.config, self.channels_last = config, channels_last
        vgg = config["backbone"]["name"] == "vgg16"
        self.backbone = VGG16() if vgg else ResNetSmall(state)
        self.generator = AnchorGenerator(
            (tuple(config["anchor_sizes"]),), (tuple(config["anchor_ratios"]),)
        )
        self.rpn = nn.ModuleDict({"head": nn.ModuleDict()})
        for name, padding in (("conv", 1), ("cls_logits", 0), ("bbox_pred", 0)):
            inner = f"{name}.0.0" if name == "conv" else name
            shape = state[f"rpn.head.{inner}.weight"].shape
            layer = nn.Conv2d(shape[1], shape[0], shape[2], padding=padding)
            nested = nn.Sequential(nn.Sequential(layer))
            self.rpn["head"][name] = nested if name == "conv" else layer
        self.roi_heads = nn.ModuleDict(
            {"box_head": nn.ModuleDict(), "box_predictor": nn.ModuleDict()}
        )
        for name in state:
            if name.startswith("roi_heads.") and name.endswith(".weight"):
                _, part, layer, _ = name.split(".")
                outputs, inputs = state[name].shape
                self.roi_heads[part][layer] = nn.Linear(inputs, outputs)
        first = state["roi_heads.box_head.fc6.weight"].shape[1]
        channels = state["rpn.head.conv.0.0.weight"].shape[1]
        self.pool = round((first / channels) ** 0.5)
        self.dropout = max(0.0, config["roi"]["dropout"])
        report = self.load_state_dict(state, strict=False)
        wrong = [k for k in report.missing_keys if not k.endswith("num_batches_tracked")]
        if wrong or report.unexpected_keys:
            raise ValueError(f"weights do not fit: {wrong}, {report.unexpected_keys}")
        self.rpn_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.roi_coder = BoxCoder(tuple(1 / v for v in config["roi"]["box_std"]))
        self._grids: dict = {}
        if channels_last:
            self.to(memory_format=torch.channels_last)

    # Parts

    def prepare(self, images: list) -> torch.Tensor:
        """uint8 (H, W, 3) of one size, as NumPy, to the network's input."""
        batch = torch.stack([torch.from_numpy(image) for image in images])
        batch = batch.permute(0, 3, 1, 2).float().div_(255)
        mean = torch.tensor(self.config["image_mean"]).view(3, 1, 1)
        batch = batch.sub_(mean).div_(torch.tensor(self.config["image_std"]).view(3, 1, 1))
        if self.channels_last:
            return batch.contiguous(memory_format=torch.channels_last)
        return batch.contiguous()

    def anchors(self, size: tuple[int, int]) -> torch.Tensor:
        if size not in self._grids:
            stride = torch.tensor(self.backbone.stride)
            self.generator.set_cell_anchors(torch.float32, torch.device("cpu"))
            self._grids[size] = self.generator.grid_anchors([size], [[stride, stride]])[0]
        return self._grids[size]

    def propose(self, feature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        head = self.rpn["head"]
        hidden = F.relu(head["conv"](feature), inplace=True)
        images = len(feature)
        logits = head["cls_logits"](hidden).permute(0, 2, 3, 1).reshape(images, -1, 2)
        return logits, head["bbox_pred"](hidden).permute(0, 2, 3, 1).reshape(images, -1, 4)

    @torch.no_grad()
    def select(self, logits, deltas, anchors, size, training: bool) -> list[torch.Tensor]:
        rpn = self.config["rpn"]
        before, after = (
            rpn[f"{when}_nms_{'train' if training else 'test'}"] for when in ("pre", "post")
        )
        scores = logits[..., 1] - logits[..., 0]
        found = []
        for score, delta in zip(scores, deltas):
            score, best = score.topk(min(before, len(score)))
            boxes = self.rpn_coder.decode_single(delta[best], anchors[best])
            boxes = clip_boxes_to_image(boxes, size)
            sides = boxes[:, 2:] - boxes[:, :2]
            large = torch.where((sides >= rpn["min_size"]).all(1))[0]
            boxes, score = boxes[large], score[large]
            found.append(boxes[nms(boxes, score, rpn["nms"])[:after]])
        return found

    def head(self, feature: torch.Tensor, boxes: list[torch.Tensor]):
        stride, ratio = self.backbone.stride, self.config["roi"]["sampling_ratio"]
        x = roi_align(feature, boxes, self.pool, 1 / stride, ratio).flatten(1)
        for layer in self.roi_heads["box_head"].values():
            x = F.dropout(F.relu(layer(x), inplace=True), self.dropout, self.training)
        predictor = self.roi_heads["box_predictor"]
        return predictor["cls_score"](x), predictor["bbox_pred"](x)

    # Training

    def losses(self, images: list, targets: list) -> dict[str, torch.Tensor]:
        batch = self.prepare(images)
        size = tuple(batch.shape[2:])
        boxes = [torch.from_numpy(t["boxes"]) for t in targets]
        labels = [torch.from_numpy(t["labels"]) for t in targets]
        feature = self.backbone(batch)
        logits, deltas = self.propose(feature)
        anchors = self.anchors(tuple(feature.shape[2:]))
        result = self.rpn_losses(logits, deltas, anchors, boxes, size)
        proposals = self.select(logits.detach(), deltas.detach(), anchors, size, True)
        return result | self.roi_losses(feature, proposals, boxes, labels)

    def rpn_losses(self, logits, deltas, anchors, boxes, size) -> dict[str, torch.Tensor]:
        rpn = self.config["rpn"]
        matcher = Matcher(rpn["positive_iou"], rpn["negative_iou"], allow_low_quality_matches=True)
        inside = torch.arange(len(anchors))
        if rpn["drop_border_anchors"]:
            limit = torch.tensor([size[1], size[0]])
            inside = torch.where(((anchors[:, :2] >= 0) & (anchors[:, 2:] <= limit)).all(1))[0]
        candidates = anchors[inside]
        matches = [matcher(box_iou(b, candidates)) for b in boxes]
        signs = [torch.where(m >= 0, 1, torch.where(m == -1, 0, -1)) for m in matches]
        sampler = BalancedPositiveNegativeSampler(rpn["batch"], rpn["positive_fraction"])
        rows, goals, chosen, wanted = [], [], [], []
        for image, (positive, negative) in enumerate(zip(*sampler(signs))):
            positive, negative = torch.where(positive)[0], torch.where(negative)[0]
            rows.append(logits[image][inside[torch.cat([positive, negative])]])
            goals += [torch.ones_like(positive), torch.zeros_like(negative)]
            chosen.append(deltas[image][inside[positive]])
            matched = boxes[image][matches[image][positive]]
            wanted.append(self.rpn_coder.encode_single(matched, candidates[positive]))
        total = sum(map(len, rows))
        offsets = F.smooth_l1_loss(
            torch.cat(chosen), torch.cat(wanted), beta=rpn["smooth_l1_beta"], reduction="sum"
        )
        return {
            "loss_objectness": F.cross_entropy(torch.cat(rows), torch.cat(goals)),
            "loss_rpn_box_reg": offsets / total,
        }

    def roi_losses(self, feature, proposals, boxes, labels) -> dict[str, torch.Tensor]:
        roi = self.config["roi"]
        matcher = Matcher(roi["positive_iou"], roi["positive_iou"])
        sampler = BalancedPositiveNegativeSampler(roi["batch"], roi["positive_fraction"])
        candidates = [torch.cat(pair) for pair in zip(proposals, boxes)]
        matches = [matcher(box_iou(b, c)) for b, c in zip(boxes, candidates)]
        classes = [
            torch.where(m >= 0, kinds[m.clamp(min=0)], 0) for m, kinds in zip(matches, labels)
        ]
        rois, goals, wanted = [], [], []
        for image, (positive, negative) in enumerate(zip(*sampler(classes))):
            rows = torch.where(positive | negative)[0]
            rois.append(candidates[image][rows])
            goals.append(classes[image][rows])
            matched = boxes[image][matches[image][rows].clamp(min=0)]
            wanted.append(self.roi_coder.encode_single(matched, rois[-1]))
        goal = torch.cat(goals)
        logits, deltas = self.head(feature, rois)
        positive = torch.where(goal > 0)[0]
        picked = deltas.view(len(goal), -1, 4)[positive, goal[positive]]
        offsets = F.smooth_l1_loss(
            picked, torch.cat(wanted)[positive], beta=roi["smooth_l1_beta"], reduction="sum"
        )
        return {
            "loss_classifier": F.cross_entropy(logits, goal),
            "loss_box_reg": offsets / len(goal),
        }

    # Inference

    @torch.inference_mode()
    def detect(self, images: list) -> list[tuple[torch.Tensor, ...]]:
        roi = self.config["roi"]
        batch = self.prepare(images)
        size = tuple(batch.shape[2:])
        feature = self.backbone(batch)
        logits, deltas = self.propose(feature)
        proposals = self.select(logits, deltas, self.anchors(tuple(feature.shape[2:])), size, False)
        scores, codes = self.head(feature, proposals)
        counts = [len(p) for p in proposals]
        decoded = self.roi_coder.decode(codes, proposals).split(counts)
        found = []
        for score, boxes in zip(scores.softmax(-1).split(counts), decoded):
            boxes, score = clip_boxes_to_image(boxes, size)[:, 1:], score[:, 1:]
            row, kind = torch.where(score > roi["score_threshold"])
            boxes, score = boxes[row, kind], score[row, kind]
            keep = batched_nms(boxes, score, kind, roi["nms"])[: roi["max_detections"]]
            found.append((boxes[keep], score[keep], kind[keep] + 1))
        return found
