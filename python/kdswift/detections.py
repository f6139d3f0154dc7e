"""What a detector found in one image."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ArgumentError, KDSError, ShapeError


@dataclass(eq=False)
class Detections:
    """Boxes with scores and classes, best first when a model returns them.

    Attributes
    ----------
    boxes : float32 (N, 4), x1, y1, x2, y2 in pixels of the image that was given
    scores : float32 (N,), in [0, 1]
    labels : int64 (N,), from 1; 0 is the background and does not occur
    masks : bool (N, H, W) or None
    class_names : tuple of str or None, index 0 is ``"background"``
    image : uint8 (H, W, 3) or None; when set, a notebook shows the picture

    ``len(d)`` is N; ``d[d.scores > 0.5]``, ``d[:10]``, ``d[[0, 2]]`` and ``d[3]`` are
    Detections too. Other dtypes are converted; lengths that differ raise ``ShapeError``.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    class_names: Sequence[str] | None = None
    image: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float32)
        self.boxes = np.ascontiguousarray(boxes.reshape(0, 4) if boxes.size == 0 else boxes)
        self.scores = np.ascontiguousarray(self.scores, dtype=np.float32)
        labels = np.asarray(self.labels)
        if labels.size and labels.dtype.kind not in "iu":
            raise ArgumentError(f"Detections: labels must be integers, got dtype {labels.dtype}")
        self.labels = np.ascontiguousarray(labels, dtype=np.int64)
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ShapeError(f"Detections: boxes must be (N, 4), got {self.boxes.shape}")
        count = len(self.boxes)
        for name in ("scores", "labels"):
            if getattr(self, name).shape != (count,):
                raise ShapeError(
                    f"Detections: {name} must be ({count},) for {count} boxes, "
                    f"got {getattr(self, name).shape}"
                )
        if self.masks is not None:
            self.masks = np.asarray(self.masks, dtype=bool)
            if self.masks.ndim != 3 or len(self.masks) != count:
                raise ShapeError(
                    f"Detections: masks must be ({count}, H, W), got {self.masks.shape}"
                )
        if self.class_names is not None:
            self.class_names = tuple(self.class_names)

    @classmethod
    def empty(cls, class_names: Sequence[str] | None = None) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), class_names=class_names)

    @classmethod
    def from_dict(
        cls, mapping: Mapping[str, Any], class_names: Sequence[str] | None = None
    ) -> Detections:
        """From ``boxes``, ``scores``, ``labels`` and optional ``masks`` (torchvision's results)."""
        for key in ("boxes", "scores", "labels"):
            if key not in mapping:
                raise ArgumentError(f"Detections.from_dict: no {key!r} in {sorted(mapping)}")
        names = class_names if class_names is not None else mapping.get("class_names")
        masks = mapping.get("masks")
        return cls(mapping["boxes"], mapping["scores"], mapping["labels"], masks, names)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> Detections:
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"Detections: index {index} out of range for {len(self)} boxes")
            index = [index]
        elif not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0 and index.dtype != bool:
                index = index.astype(np.int64)
        return Detections(
            self.boxes[index],
            self.scores[index],
            self.labels[index],
            None if self.masks is None else self.masks[index],
            self.class_names,
            self.image,
        )

    def above(self, score_threshold: float) -> Detections:
        """Those with a score of at least the threshold."""
        return self[self.scores >= score_threshold]

    def name(self, i: int) -> str:
        """Class name of detection `i`, or its label as text where there are no names."""
        return class_name(self.class_names, int(self.labels[i]))

    def to_dict(self) -> dict[str, Any]:
        """``boxes``, ``scores``, ``labels`` (and ``masks``) as arrays, torchvision's names."""
        result = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        if self.masks is not None:
            result["masks"] = self.masks
        return result

    def to_coco(
        self, image_id: int, category_ids: Mapping[int, int] | Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Entries of a COCO results file, ready for ``json.dump``.

        Boxes become ``[x, y, width, height]``. `category_ids` maps our labels to the file's
        ids (None: the label itself). Masks become compressed RLE (needs pycocotools).
        """
        results = []
        for i in range(len(self)):
            x1, y1, x2, y2 = (float(v) for v in self.boxes[i])
            label = int(self.labels[i])
            entry = {
                "image_id": image_id,
                "category_id": label if category_ids is None else int(category_ids[label]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(self.scores[i]),
            }
            if self.masks is not None:
                entry["segmentation"] = _rle(self.masks[i])
            results.append(entry)
        return results

    def to_supervision(self) -> Any:
        """A ``supervision.Detections`` with our labels as ``class_id`` and names in ``data``."""
        try:
            import supervision
        except ImportError as error:
            raise KDSError("to_supervision needs the package: pip install supervision") from error
        names = np.array([self.name(i) for i in range(len(self))], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels.astype(int),
            mask=self.masks,
            data={"class_name": names},
        )

    def draw(self, score_threshold: float = 0.0) -> Any:
        """A PIL picture of the attached image with the boxes; see ``kd.viz.draw``."""
        if self.image is None:
            raise ArgumentError(
                "Detections.draw: no image is attached; use kd.viz.draw(image, detections)"
            )
        from .viz import draw

        return draw(self.image, self, score_threshold=score_threshold)

    def __repr__(self) -> str:
        lines = [f"Detections({len(self)} boxes{', masks' if self.masks is not None else ''})"]
        for i in range(min(len(self), 10)):
            box = ", ".join(f"{v:.1f}" for v in self.boxes[i])
            lines.append(f"  {self.name(i):<14} {self.scores[i]:.3f}  ({box})")
        if len(self) > 10:
            lines.append(f"  … {len(self) - 10} more")
        return "\n".join(lines)

    def _repr_png_(self) -> bytes | None:
        if self.image is None:
            return None
        buffer = io.BytesIO()
        self.draw().save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        picture = self._repr_png_()
        if picture is not None:
            data = base64.b64encode(picture).decode()
            return f'<img alt="{len(self)} detections" src="data:image/png;base64,{data}">'
        rows = "".join(
            f"<tr><td>{html.escape(self.name(i))}</td><td>{self.scores[i]:.3f}</td>"
            f"<td>{', '.join(f'{v:.1f}' for v in self.boxes[i])}</td></tr>"
            for i in range(min(len(self), 20))
        )
        more = f"<p>… {len(self) - 20} more</p>" if len(self) > 20 else ""
        head = "<tr><th>class</th><th>score</th><th>x1, y1, x2, y2</th></tr>"
        return f"<p>{len(self)} detections</p><table>{head}{rows}</table>{more}"


def class_name(class_names: Sequence[str] | None, label: int) -> str:
    """The name of a label, or the label as text."""
    if class_names is not None and 0 <= label < len(class_names):
        return str(class_names[label])
    return str(label)


def _rle(mask: np.ndarray) -> dict[str, Any]:
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise KDSError("masks in COCO form need the package: pip install pycocotools") from error
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(s) for s in rle["size"]], "counts": rle["counts"].decode("ascii")}
