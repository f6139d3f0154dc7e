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
        plain = teacher.features(images)["backbone.layer2"].numpy()
    assert first.tobytes() == plain.tobytes()
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
    # One to see what there is, three for the estimate, one for its name, then each once.
    assert fn.images <= 5 + 4
    report = capsys.readouterr().out
    assert "cache: 432 B per image, 1.73 KB for 4 images" in report
    assert "of the teacher where nothing is kept yet" in report
    assert "float16" not in report
    before = fn.images
    assert same(cold, run())
    assert fn.images == before + 2  # what there is, and whether it is still the same


def test_estimates(tmp_path):
    teacher = cached(shrunk, tmp_path / "none" / "yet")
    estimate = teacher.estimate(scenes(5))
    assert estimate["bytes_per_image"] == 3 * 6 * 6 * 4
    assert estimate["bytes"] == 5 * 3 * 6 * 6 * 4
    assert estimate["free"] > 0
    assert estimate["seconds"] > 0
    assert "max_error" not in estimate
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


# Entries that are not what they say


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("damage", ["flipped", "shuffled", "swapped", "truncated"])
def test_flipped_shuffled_and_truncated_entries_are_caught(tmp_path, damage, dtype):
    images, _ = batch(2)

    def teacher():
        return kd.Teacher.cached(kd.Teacher.from_callable(shrunk, ["p3"]), tmp_path, dtype)

    good = teacher().outputs(images)["p3"].tobytes()
    first, second = entries(tmp_path)
    raw, size = first.read_bytes(), 3 * 6 * 6 * np.dtype(dtype).itemsize
    values = np.frombuffer(raw[-size:], dtype).reshape(3, 6, 6)
    if damage == "flipped":
        first.write_bytes(raw[:-size] + np.ascontiguousarray(values[..., ::-1]).tobytes())
    elif damage == "shuffled":
        mixed = np.random.default_rng(0).permutation(values.ravel())
        first.write_bytes(raw[:-size] + mixed.tobytes())
    elif damage == "swapped":
        first.write_bytes(second.read_bytes())
        second.write_bytes(raw)
    else:
        first.write_bytes(raw[: -size // 2])
    again = teacher()
    assert again.outputs(images)["p3"].tobytes() == good
    assert (again.hits, again.misses) == ((0, 2) if damage == "swapped" else (1, 1))
    assert first.read_bytes() == raw  # and it is whole again


def test_a_flipped_view_has_an_entry_of_its_own(tmp_path):
    images, _ = batch(1)
    mirrored = [np.ascontiguousarray(images[0][:, ::-1])]
    both = [cached(shrunk, tmp_path).outputs(view)["p3"] for view in (images, mirrored)]
    assert len(entries(tmp_path)) == 2
    assert not np.array_equal(*both)
    again = cached(shrunk, tmp_path, taps=["p3"])
    for view, expected in zip((images, mirrored), both):
        assert again.outputs(view)["p3"].tobytes() == expected.tobytes()
    assert (again.hits, again.misses) == (2, 0)


# Half the space


def test_float16_halves_the_files_and_rounds_what_is_not_read_too(tmp_path, capsys):
    images, _ = batch(3)
    whole = shrunk_bytes(images)

    def teacher():
        return kd.Teacher.cached(kd.Teacher.from_callable(shrunk, ["p3"]), tmp_path, "float16")

    cold = teacher().outputs(images)["p3"]
    warm_teacher = teacher()
    warm = warm_teacher.outputs(images)["p3"]
    assert (warm_teacher.hits, warm_teacher.misses) == (3, 0)
    assert cold.dtype == warm.dtype == np.float32
    exact = np.frombuffer(whole, "f4").reshape(warm.shape)
    assert cold.tobytes() == warm.tobytes() == exact.astype("f2").astype("f4").tobytes()
    # Entries of one type are not those of the other.
    assert cached(shrunk, tmp_path).outputs(images)["p3"].tobytes() == whole
    sizes = sorted(len(path.read_bytes()) for path in entries(tmp_path))
    assert sizes[3] - sizes[0] == 3 * 6 * 6 * 2
    kd.distill(detector(1), teacher(), scenes(3), TERMS, 1, **{**QUIET, "progress": True})
    report = capsys.readouterr().out
    assert "cache: 216 B per image, 648 B for 3 images" in report
    found = teacher().estimate(scenes(3))
    error = np.abs(warm - exact)
    assert found["max_error"] == pytest.approx(error.max() / np.abs(exact).max(), rel=1e-6)
    assert found["mean_error"] == pytest.approx(error.mean() / np.abs(exact).mean(), rel=1e-6)
    assert 0 < found["max_error"] <= 2**-11  # half a unit of the last of 11 bits
    assert f"float16 rounds by at most {found['max_error']:.1e} of the largest value" in report


def test_what_overflows_float16_stays_float32(tmp_path):
    images, _ = batch(1)

    def large(images):
        return {"p3": shrunk(images)["p3"] * np.float32(1e5)}

    teacher = kd.Teacher.cached(kd.Teacher.from_callable(large, ["p3"]), tmp_path, "float16")
    values = teacher.outputs(images)["p3"]
    assert np.abs(values).max() > 65504
    again = kd.Teacher.cached(kd.Teacher.from_callable(large, ["p3"]), tmp_path, "float16")
    assert again.outputs(images)["p3"].tobytes() == values.tobytes()
    assert again.hits == 1
    assert teacher.estimate(scenes(2))["max_error"] == 0
    with pytest.raises(ArgumentError, match="dtype is 'half'"):
        kd.Teacher.cached(detector(1), tmp_path, "half")
