"""What ``import spahgc`` costs and offers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import spahgc as sp

PROBE = """
import sys
import spahgc
heavy = {"torch", "timm", "torch_geometric", "sklearn", "scanpy", "anndata", "numpy", "pandas", "matplotlib"}
print(*sorted(heavy & set(sys.modules)))
"""
"""Benchmarks measure the seconds of an import; what it may load is what makes them."""


def test_import_loads_neither_torch_nor_timm_nor_anything_heavy() -> None:
    out = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stdout
    assert out.split() == []


def test_every_public_name_can_be_reached() -> None:
    for name in sp.__all__:
        assert getattr(sp, name) is not None
    assert set(sp.__all__) <= set(dir(sp))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sp.nothing  # noqa: B018


def test_a_device_that_is_not_there_is_named() -> None:
    from spahgc._settings import resolve_device

    with pytest.raises(ValueError, match='device="cuda:99" is not available here'):
        resolve_device("cuda:99")


def test_progress_can_be_switched_off(capsys: pytest.CaptureFixture[str]) -> None:
    from spahgc._settings import progress_bar

    sp.settings.progress = False
    with progress_bar(total=2, desc="work") as bar:
        bar.update()
    assert capsys.readouterr().err == ""
    sp.settings.progress = True
    with progress_bar(total=2, desc="work") as bar:
        bar.update()
    assert "work" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has another place for caches")
def test_the_cache_folder_is_where_the_user_keeps_caches(tmp_path: Path) -> None:
    code = "import spahgc; print(spahgc.settings.cache_dir)"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == str(tmp_path / "spahgc")
