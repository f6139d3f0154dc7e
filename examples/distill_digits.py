"""Five lines to a distilled detector: a teacher, a student, and what the teacher was good for.

python examples/distill_digits.py [--epochs 8] [--scenes 2000] [--out runs/example]
"""

from __future__ import annotations

import argparse

import kdswift as kd
from kdswift.demo import detector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--out", default="runs/example")
    options = parser.parse_args()

    train = kd.data.DigitScenes("train", n=options.scenes)
    val = kd.data.DigitScenes("val", n=max(4, options.scenes // 5))
    run = {
        "epochs": options.epochs,
        "val": val,
        "batch_size": 16,
        "optimizer": kd.AdamW(lr=2e-3),
        "clip_norm": 10.0,
    }

    teacher = detector(width=1.0, seed=0)
    teacher.fit(train, out=f"{options.out}/teacher", **run)

    alone = detector(width=0.375, seed=1)
    alone.fit(train, out=f"{options.out}/alone", **run)

    student = detector(width=0.375, seed=1)
    history = kd.distill(
        student, teacher, train, kd.methods.Chen2017(), out=f"{options.out}/distilled", **run
    )
    print(history)

    for name, model in {"teacher": teacher, "alone": alone, "distilled": student}.items():
        print(f"{name:<10} {model.num_parameters:>9,} parameters  {kd.evaluate(model, val)}")
    image, target = val[0]
    found = {"alone": alone.predict(image)[0], "distilled": student.predict(image)[0]}
    kd.viz.compare(image, found, target, val.class_names).save(f"{options.out}/compare.png")


if __name__ == "__main__":
    main()
