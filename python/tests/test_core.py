"""Loading, versions, threads, seeds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import kdswift as kd
from kdswift import _library, runtime


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_engine_and_package_have_one_version():
    info = kd.build_info()
    assert info["version"] == kd.__version__
    assert info["library"].endswith(".so")
    assert info["threads"] == kd.get_num_threads()


def test_blas_uses_the_shared_thread_pool():
    # Two pools would fight over the processors, so OpenBLAS must be its OpenMP build.
    assert "USE_OPENMP" in kd.build_info()["openblas"]


def test_loaded_variant_fits_this_processor():
    isa = kd.build_info()["isa"].removeprefix("x86-64-")
    assert isa in [*_library.supported_isas(), "baseline"]


def test_thread_count_is_kept_and_checked(threads):
    kd.set_num_threads(3)
    assert kd.get_num_threads() == 3
    with pytest.raises(kd.ArgumentError, match="count is 0, expected 1 to 1024"):
        kd.set_num_threads(0)
    assert kd.get_num_threads() == 3


def test_thread_count_comes_from_the_environment():
    done = run_python("import kdswift as kd; print(kd.get_num_threads())", OMP_NUM_THREADS="7")
    assert done.stdout.strip() == "7", done.stderr


def test_forked_child_is_serial():
    code = (
        "import os, kdswift as kd; kd.set_num_threads(2); pid = os.fork()\n"
        "if pid == 0: os._exit(kd.get_num_threads())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), kd.get_num_threads())"
    )
    assert run_python(code).stdout.split() == ["1", "2"]


def test_messages_belong_to_their_thread():
    with pytest.raises(kd.ArgumentError):
        kd.set_num_threads(-5)
    seen = []
    worker = threading.Thread(target=lambda: seen.append(_library.lib.last_error()))
    worker.start()
    worker.join()
    assert seen == [""]
    assert "-5" in _library.lib.last_error()


def test_seed_counts_on_and_repeats():
    kd.seed(11)
    first = [runtime.next_seed(), runtime.next_seed()]
    kd.seed(11)
    assert [runtime.next_seed(), runtime.next_seed()] == first == [11, 12]
    with pytest.raises(ValueError, match="seed is -1"):
        kd.seed(-1)
    kd.seed(0)


def test_conv_plan_is_checked():
    kd.set_conv_plan("measured")
    kd.set_conv_plan("static")
    with pytest.raises(kd.ArgumentError, match="static, measured, direct, winograd"):
        kd.set_conv_plan("fast")


def test_unknown_attribute_names_itself():
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = kd.no_such_thing


def test_every_lazy_name_is_there():
    for name in kd.__all__:
        assert getattr(kd, name) is not None
        assert name in dir(kd)


def test_import_brings_in_nothing_heavy():
    heavy = "{'matplotlib', 'PIL', 'torch', 'sklearn', 'pycocotools', 'tqdm', 'safetensors'}"
    done = run_python(f"import sys, kdswift; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_library_names_every_tried_path():
    done = run_python("import kdswift; kdswift.build_info()", KDSWIFT_LIBRARY="/nowhere/libx.so")
    assert done.returncode == 1
    assert "/nowhere/libx.so: not there" in done.stderr
    assert "make build" in done.stderr


def test_damaged_library_is_reported(tmp_path):
    broken = tmp_path / "libkdswift.so"
    broken.write_bytes(b"not a library")
    done = run_python("import kdswift; kdswift.build_info()", KDSWIFT_LIBRARY=str(broken))
    assert "KDSError" in done.stderr
    assert str(broken) in done.stderr


def test_unknown_isa_is_refused():
    done = run_python("import kdswift; kdswift.build_info()", KDSWIFT_ISA="v9")
    assert "KDSWIFT_ISA is 'v9', expected" in done.stderr


def test_old_library_is_refused(monkeypatch):
    monkeypatch.setattr(_library.signatures, "KDS_ABI_VERSION", 99)
    with pytest.raises(kd.KDSError, match=r"has ABI version \d+, this package needs 99"):
        _ = _library._Library().kds_abi_version


def test_memory_is_counted_reused_and_given_back():
    before = kd.memory_stats(reset_peak=True)
    big = kd.tensor(np.zeros(1 << 20, np.float32))
    held = kd.memory_stats()
    assert held["in_use"] - before["in_use"] >= 4 << 20
    assert held["peak"] >= held["in_use"]
    del big
    after = kd.memory_stats(reset_peak=True)
    assert after["in_use"] == before["in_use"] and after["cached"] >= 4 << 20
    assert kd.memory_stats()["peak"] == after["in_use"]
    kd.release_memory()
    assert kd.memory_stats()["cached"] == 0
