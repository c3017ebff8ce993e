"""Whatever lies in ``obsm`` as an embedding is either numbers that can be computed with, or refused before any work."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from tests.conftest import EMBEDDING

import spahgc as sp
from spahgc._validate import LARGEST_EMBEDDING, SMALLEST_RANGE, embedding_matrix


def masked(z, mask):
    return np.ma.masked_array(z, mask=mask)


def first_is_masked(z):
    mask = np.zeros(z.shape, bool)
    mask[2, 0] = True
    return masked(z, mask)


REFUSED = {
    "boolean": (lambda z: z > 0, TypeError, "holds values of type bool, not real numbers"),
    "complex": (lambda z: z + 1j, TypeError, "holds values of type complex64, not real numbers"),
    "complex of no imaginary part": (lambda z: z + 0j, TypeError, "holds values of type complex64"),
    "objects": (lambda z: z.astype(object), TypeError, r"type object.*adata.obsm\[key\].astype"),
    "text": (lambda z: z.astype("U8"), TypeError, "holds values of type <U8, not real numbers"),
    "dates": (lambda z: z.astype("M8[s]"), TypeError, r"type datetime64\[s\]"),
    "CSR": (csr_matrix, TypeError, r"is sparse \(csr_matrix\).*\.toarray\(\)"),
    "sparse array": (lambda z: csr_matrix(z).tocsc(), TypeError, r"is sparse \(csc_matrix\)"),
    "zero": (np.zeros_like, ValueError, "is zero in all 70 spots, so that nothing tells them apart"),
    "constant": (lambda z: np.full_like(z, 0.5), ValueError, "is the same in all 70 spots"),
    "the same at all spots": (lambda z: np.repeat(z[:1], len(z), axis=0), ValueError, "is the same in all 70 spots"),
    "huge": (lambda z: z * np.float32(1e30), ValueError, "holds numbers up to .*e.30; beyond 1e.15"),
    "tiny": (
        lambda z: z * np.float32(1e-30),
        ValueError,
        "differs by .* at most between its 70 spots, less than 1e-05",
    ),
    "a mean and no more": (lambda z: 0.1 + z * np.float32(1e-7), ValueError, "at most between its 70 spots"),
    "beyond float32": (lambda z: z.astype(np.float64) * 1e300, ValueError, "NaN or infinite numbers in 70 of 70"),
    "beyond half precision": (lambda z: (z * 1e6).astype(np.float16), ValueError, "NaN or infinite numbers in"),
    "masked": (first_is_masked, ValueError, "NaN or infinite numbers in 1 of 70 spots"),
    "no column": (lambda z: z[:, :0], ValueError, r"must be spots x dim, found shape \(70, 0\)"),
    "three dimensions": (lambda z: z[:, :, None], ValueError, r"found shape \(70, 24, 1\)"),
}


@pytest.fixture
def panel(refs):
    return list(refs[0].var_names[::3])


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr("spahgc.tl._predict.as_bank", lambda *args, **kwargs: pytest.fail("a bank was made"))
    monkeypatch.setattr("spahgc.pp._bank.references.selected_genes", lambda *args: pytest.fail("genes were selected"))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_embedding_is_refused_in_target_and_reference_before_any_work(target, refs, no_work, kind):
    make, error, message = REFUSED[kind]
    good = np.asarray(target.obsm[EMBEDDING])
    target.obsm[EMBEDDING] = make(good)
    with pytest.raises(error, match=rf'obsm\["X_sim"\] of the target .*{message}'):
        sp.tl.predict(target, refs)
    target.obsm[EMBEDDING] = good
    refs[1].obsm[EMBEDDING] = make(np.asarray(refs[1].obsm[EMBEDDING]))
    for call in (lambda: sp.tl.predict(target, refs), lambda: sp.pp.reference_bank(refs)):
        with pytest.raises(error, match=rf'obsm\["X_sim"\] of reference "P1S2" .*{message}'):
            call()


def test_an_embedding_in_a_frame_of_other_columns_is_refused_with_their_names(target):
    frame = pd.DataFrame(np.asarray(target.obsm[EMBEDDING]), index=target.obs_names)
    target.obsm[EMBEDDING] = frame.assign(cluster="a", tumour=True).rename(columns=str)
    with pytest.raises(
        TypeError, match='DataFrame whose columns "cluster", "tumour" hold bool, (object|str).* Keep the'
    ):
        embedding_matrix(target, EMBEDDING, "the target")


def test_a_missing_number_in_a_frame_is_refused_with_its_spot(target):
    frame = (
        pd.DataFrame(np.asarray(target.obsm[EMBEDDING]), index=target.obs_names).rename(columns=str).astype("Float32")
    )
    frame.iloc[3, 1] = pd.NA
    target.obsm[EMBEDDING] = frame
    with pytest.raises(ValueError, match=rf'NaN or infinite numbers in 1 of 70 spots \("{target.obs_names[3]}"\)'):
        embedding_matrix(target, EMBEDDING, "the target")


def in_zarr(z):
    import zarr

    array = zarr.create_array({}, shape=z.shape, dtype=z.dtype)
    array[:] = z
    return array


def in_dask(z):
    return pytest.importorskip("dask.array").from_array(z, chunks=(16, 24))


def in_frame(z, index):
    return pd.DataFrame(z, index=index, columns=[f"dim {i}" for i in range(z.shape[1])])


ALLOWED = {
    "float64": lambda z, _: z.astype(np.float64),
    "float64, big-endian": lambda z, _: z.astype(">f8"),
    "half precision": lambda z, _: z.astype(np.float16),
    "columns first": lambda z, _: np.asfortranarray(z),
    "frame": in_frame,
    "frame of nullable columns": lambda z, index: in_frame(z, index).astype("Float32"),
    "masked where nothing is": lambda z, _: masked(z, False),
    "zarr": lambda z, _: in_zarr(z),
    "dask": lambda z, _: in_dask(z),
}


@pytest.mark.parametrize("kind", ALLOWED)
def test_numbers_of_any_kind_predict_as_the_same_array_does(target, refs, panel, kind):
    # Of half precision, so that none of the kinds rounds them.
    for slide in (target, *refs):
        slide.obsm[EMBEDDING] = np.asarray(slide.obsm[EMBEDDING]).astype(np.float16).astype(np.float32)
    expected = target.copy()
    sp.tl.predict(expected, refs, method="ridge", genes=panel)
    for slide in (target, *refs):
        slide.obsm[EMBEDDING] = ALLOWED[kind](np.asarray(slide.obsm[EMBEDDING]), slide.obs_names)
    sp.tl.predict(target, refs, method="ridge", genes=panel)
    np.testing.assert_array_equal(target.layers["spahgc"], expected.layers["spahgc"])


def test_whole_numbers_are_an_embedding(target):
    target.obsm[EMBEDDING] = np.arange(140).reshape(70, 2)
    z = embedding_matrix(target, EMBEDDING, "the target")
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, np.arange(140).reshape(70, 2))


def test_a_spot_of_zeros_is_said_and_predicted(target, refs, panel, quick):
    target.obsm[EMBEDDING][[4, 7]] = 0
    with pytest.warns(UserWarning, match=r"of the target is zero in 2 of 70 spots .*, as where nothing was embedded"):
        sp.tl.predict(target, refs, genes=panel, preset=quick)
    assert np.isfinite(target.layers["spahgc"][:, target.var["spahgc_panel"]]).all()
    assert np.isfinite(target.obsm["spahgc_cs"].data).all() and not target.obsm["spahgc_cs"][4].data.any()


def test_an_embedding_without_a_zero_spot_warns_of_nothing(target):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedding_matrix(target, EMBEDDING, "the target")


@pytest.mark.parametrize("scale", [LARGEST_EMBEDDING / 100, SMALLEST_RANGE * 10])
@pytest.mark.parametrize("parameters", ["quick", "quick_default"])
def test_numbers_within_the_limits_give_no_nan(target, refs, panel, parameters, scale, request):
    for slide in (target, *refs):
        slide.obsm[EMBEDDING] = slide.obsm[EMBEDDING] * np.float32(scale)
    sp.tl.predict(target, refs, genes=panel, preset=request.getfixturevalue(parameters))
    assert np.isfinite(target.layers["spahgc"][:, target.var["spahgc_panel"]]).all()
    assert np.isfinite(target.obsm["spahgc_cs"].data).all()


def test_an_embedding_of_another_tool_is_checked_when_it_is_taken(target):
    target.obsm["X_own"] = np.asarray(target.obsm[EMBEDDING]) > 0
    with pytest.raises(TypeError, match=r'obsm\["X_own"\] of the slide holds values of type bool'):
        sp.pp.use_embedding(target, "X_own", record={"name": "own"})
    target.obsm["X_own"] = np.zeros((70, 3))
    with pytest.raises(ValueError, match=r'obsm\["X_own"\] of the slide is zero in all 70 spots'):
        sp.pp.use_embedding(target, "X_own", record={"name": "own"})
