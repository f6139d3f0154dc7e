"""Wei et al., "Quantization Mimic: Towards Very Tiny CNN for Object Detection", ECCV 2018."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import losses
from ..comparisons.comparison import Comparison
from ..comparisons.regions import RegionMaps
from ..comparisons.site import Site
from ..tensors import Tensor
from .mimic2017 import need_regions
from .published import Published


@dataclass(frozen=True, repr=False, eq=False)
class QuantizationMimic(Published):
    """Wei et al., "Quantization Mimic: Towards Very Tiny CNN for Object Detection", ECCV 2018: both
    feature maps are rounded to multiples of a step before the student's regions are compared.

    L_m = 1/(2N) sum over regions of |Q(f_t) - Q(r(f_s))|^2 (equation 6), gradient of a ReLU

    weight : lambda (paper: 1; 0.1 and 10 are worse)
    step : s of the quantizer (paper: 1)
    form : "uniform" (paper) or "power_of_two" (its ablation)
    quantize_student, quantize_teacher : the four cases of the paper's table 4
    output_size : of RoI max pooling (paper: 7 on VOC, 3 on WIDER FACE); None compares raw crops
    normalize : divide every region by its number of elements; the paper does not
    kernel : of the learned convolution r; not published, 3 as in `Mimic2017`
    levels : see `Mimic2017`

    The published pipeline also finetunes the teacher with its map quantized first:
    `kd.surgery.quantize_features`. The student has to propose regions, 128 of them in the paper.
    """

    label: ClassVar[str] = "quantization_mimic"

    weight: float = 1.0
    step: float = 1.0
    form: str = "uniform"
    quantize_student: bool = True
    quantize_teacher: bool = True
    output_size: int | None = 7
    normalize: bool = False
    kernel: int = 3
    levels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        self._check_numbers("weight")
        self._check_numbers("step", open_end=True)
        self._check_choice("form", ("uniform", "power_of_two"))
        self._check_choice("kernel", (1, 3))
        self._check_levels()

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over all levels."""
        need_regions(site, "QuantizationMimic")
        pairs = site.level_pairs(self.levels)
        adapters = [
            site.adapter(f"{self.label}.{own['name']}", own, other, kernel=self.kernel)
            for own, other in pairs
        ]

        def compare(student: Tensor, teacher: Tensor, rois: Any, scale: float) -> Tensor:
            return losses.quantized_mimic(
                *(student, teacher, rois, scale, self.step, self.form),
                quantize_student=self.quantize_student,
                quantize_teacher=self.quantize_teacher,
                output_size=self.output_size,
                normalize=self.normalize,
            )

        return [RegionMaps(self.label, self.weight, site, pairs, compare, adapters=adapters)]
