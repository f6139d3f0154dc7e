"""Taps on disk: exact, keyed by what they depend on, and never trusted when damaged."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import QUIET, batch, detector, same, scenes

import kdswift as kd
from kdswift.errors import ArgumentError, KDSError, ShapeError

TERMS = kd.Method([kd.Term("backbone.layer3", "p3")])


def shrunk(images):
    """Values with every bit of a float32 in use."""
    return {"p3": np.stack([np.sin(i[:, ::8, ::8] * 97) for i in images])}


class Counted:
    """A function that counts the images it was shown."""

    def __init__(self, fn=shrunk):
        self.fn, self.images = fn, 0

    def __call__(self, images):
        self.images += len(images)
        return self.fn(images)


def cached(fn, folder, **options):
    return kd.Teacher.cached(kd.Teacher.from_callable(fn, **options), folder)


def entries(folder):
    return sorted(folder.rglob("*.tap"))


def test_warm_equals_cold_bit_for_bit(tmp_path):
    images, _ = batch(3)
    fn = Counted()
    cold = cached(fn, tmp_path).outputs(images)
    assert fn.images == 1 + 3  # one to learn the names
    warm_teacher = cached(fn, tmp_path, taps=["p3"])
    warm = warm_teacher.outputs(images)
    assert fn.images == 4 + 1  # one to see that the function is still the same
    assert (warm_teacher.hits, warm_teacher.misses) == (3, 0)
    assert cold["p3"].tobytes() == warm["p3"].tobytes() == shrunk_bytes(images)
    assert len(entries(tmp_path)) == 3


def shrunk_bytes(images):
    pixels = [i.transpose(2, 0, 1).astype(np.float32) / np.float32(255) for i in images]
    return shrunk(pixels)["p3"].astype(np.float32).tobytes()


def test_detectors_are_cached_without_asking_again(tmp_path):
    images, _ = batch(2)
    teacher = detector(7)
    kept = kd.Teacher.cached(teacher, tmp_path)
    first = kept.outputs(images, ["backbone.layer2"])["backbone.layer2"]
    with kd.no_grad():
        alone = [teacher.features([i])["backbone.layer2"].numpy() for i in images]
    assert first.tobytes() == np.concatenate(alone).tobytes()
    again = kd.Teacher.cached(detector(7), tmp_path)
    assert (
        again.outputs(images, ["backbone.layer2"])["backbone.layer2"].tobytes() == first.tobytes()
    )
    assert (again.hits, again.misses) == (2, 0)
    other = kd.Teacher.cached(detector(8), tmp_path)
    assert not np.array_equal(other.outputs(images, ["backbone.layer2"])["backbone.layer2"], first)
    assert (other.hits, other.misses) == (0, 2)


def test_keys_follow_pixels_names_and_options(tmp_path):
    images, _ = batch(1)
    cached(shrunk, tmp_path).outputs(images)
    for teacher, pictures in (
        (cached(shrunk, tmp_path, version="2"), images),
        (cached(shrunk, tmp_path, image_size=24), images),
        (cached(shrunk, tmp_path), [images[0][:, ::-1]]),
        (cached(lambda i: {"other": shrunk(i)["p3"]}, tmp_path), images),
    ):
        teacher.outputs(pictures)
        assert (teacher.hits, teacher.misses) == (0, 1)
    assert len(entries(tmp_path)) == 5


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "longer", "swap", "header"])
def test_damaged_entries_are_computed_anew(tmp_path, damage):
    images, _ = batch(2)
    good = cached(shrunk, tmp_path).outputs(images)["p3"].tobytes()
    first, second = entries(tmp_path)
    content = first.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 12).tolist():
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        header = bytearray(content)
        header[position % 90] ^= 4
        first.write_bytes(
            {
                "cut": content[:position],
                "flip": bytes(changed),
                "empty": b"",
                "longer": content + b"x",
                "swap": second.read_bytes(),
                "header": bytes(header),
            }[damage]
        )
        assert cached(shrunk, tmp_path).outputs(images)["p3"].tobytes() == good
        if damage != "flip":  # the zeros between header and values are covered by nothing
            assert first.read_bytes() == content
    assert len(list(tmp_path.rglob("*"))) == len({first.parent, second.parent}) + 2


def test_a_changed_function_is_noticed(tmp_path):
    images, _ = batch(2)
    function = Counted()
    cached(function, tmp_path).outputs(images)
    function.fn = lambda i: {"p3": shrunk(i)["p3"] + 1}
    teacher = cached(function, tmp_path)
    with pytest.warns(UserWarning, match=r"changed since 'p3' was kept.*version="):
        fresh = teacher.outputs(images)["p3"]
    again = cached(function, tmp_path).outputs(images)["p3"]
    assert fresh.tobytes() == again.tobytes()
    np.testing.assert_allclose(
        fresh, np.frombuffer(shrunk_bytes(images), "f4").reshape(fresh.shape) + 1
    )


def test_a_run_with_cold_and_warm_cache_is_the_same(tmp_path, capsys):
    def run(epochs=2, progress=False):
        student = detector(1, width=0.25)
        options = {**QUIET, "progress": progress, "optimizer": kd.SGD(lr=0.02)}
        teacher = cached(fn, tmp_path / "cache")
        kd.distill(student, teacher, scenes(4), TERMS, epochs, seed=3, **options)
        return student

    fn = Counted()
    cold = run(progress=True)
    # One to see what there is, one for the estimate, one for its name, then each once.
    assert fn.images <= 3 + 4
    assert "cache: 432 B per image, 1.73 KB for 4 images" in capsys.readouterr().out
    before = fn.images
    assert same(cold, run())
    assert fn.images == before + 2  # what there is, and whether it is still the same


def test_estimates(tmp_path):
    teacher = cached(shrunk, tmp_path / "none" / "yet")
    estimate = teacher.estimate(scenes(5))
    assert estimate["bytes_per_image"] == 3 * 6 * 6 * 4
    assert estimate["bytes"] == 5 * 3 * 6 * 6 * 4
    assert estimate["free"] > 0
    assert not (tmp_path / "none").exists()


def test_a_full_disk_ends_the_caching_not_the_run(tmp_path, monkeypatch):
    from kdswift.teachers import cached as module

    def refuse(*_arguments):
        raise OSError(28, "no space left")

    monkeypatch.setattr(module, "write_entry", refuse)
    images, _ = batch(2)
    with pytest.warns(UserWarning, match="nothing more is cached: no space left"):
        values = cached(shrunk, tmp_path).outputs(images)["p3"]
    assert values.tobytes() == shrunk_bytes(images)


def test_what_is_not_finite_is_not_kept(tmp_path):
    def fn(images):
        return {"p3": shrunk(images)["p3"] * np.float32("nan")}

    with pytest.raises(KDSError, match="not finite"):
        kd.distill(detector(1), cached(fn, tmp_path), scenes(2), TERMS, 1, **QUIET)
    assert entries(tmp_path) == []


def test_maps_of_unlike_images_are_padded(tmp_path):
    small, large = np.zeros((24, 32, 3), np.uint8), np.full((48, 16, 3), 255, np.uint8)

    def fn(images):
        return {"p3": np.stack([i[:, ::8, ::8] + 1 for i in images]), "mean": shrunk(images)["p3"]}

    maps = cached(fn, tmp_path).outputs([small, large], ["p3"])["p3"]
    assert maps.shape == (2, 3, 6, 4)
    assert maps[0, :, :3].min() == 1
    assert not maps[0, :, 3:].any()
    assert not maps[1, :, :, 2:].any()

    small = np.zeros((24, 40, 3), np.uint8)

    def flat(images):
        return {"tokens": np.stack([i[:, ::8, ::8].reshape(-1, 3) for i in images])}

    with pytest.raises(ShapeError, match=r"'tokens' has unlike shapes.*\(1, 15, 3\)"):
        cached(flat, tmp_path).outputs([small, large])


def test_wrong_uses_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="is a file"):
        cached(shrunk, tmp_path / "file")
    results = kd.Teacher.from_coco_results([], scenes(2))
    with pytest.raises(ArgumentError, match="no arrays"):
        kd.Teacher.cached(results, tmp_path)
    student = detector(1)
    with pytest.raises(ArgumentError, match="same object"):
        kd.distill(student, kd.Teacher.cached(student, tmp_path), scenes(2), TERMS, 1, **QUIET)
