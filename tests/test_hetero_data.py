"""The graph as PyTorch Geometric holds it: what the package's own layers see, and nothing measured on the target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.nn import HeteroConv, SAGEConv

import spahgc as sp
from spahgc.nn import Edges, MeanSAGE

TS, CS, RS = ("target", "ts", "target"), ("reference", "cs", "target"), ("reference", "rs", "reference")


@pytest.fixture
def bank(refs):
    return sp.pp.reference_bank(refs)


@pytest.fixture
def joined(target, bank):
    """The target with its two graphs."""
    sp.pp.spatial_graph(target)
    sp.pp.cross_graph(target, bank)
    return target


def own_edges(data, kind) -> Edges:
    source, receiver = data[kind].edge_index
    return Edges(source, receiver, data[kind[0]].num_nodes, data[kind[2]].num_nodes)


def test_nodes_carry_embedding_centres_and_the_references_expression(joined, bank):
    data = sp.pp.hetero_data(joined, bank)
    data.validate()
    np.testing.assert_array_equal(data["target"].x, joined.obsm["X_sim"])
    np.testing.assert_array_equal(data["reference"].x, bank.obsm["X_sim"])
    np.testing.assert_array_equal(data["reference"].y, bank.X.toarray())
    np.testing.assert_allclose(data["target"].pos, joined.obsm["spatial"], rtol=1e-6)
    assert data["reference"].genes == list(bank.var_names)
    named = np.array(data["reference"].slides)[data["reference"].slide]
    np.testing.assert_array_equal(named, bank.obs["slide"].astype(str))


def test_edges_run_from_what_is_listened_to_to_what_listens(joined, bank):
    data = sp.pp.hetero_data(joined, bank)
    for kind, graph in (
        (TS, joined.obsp["spatial_distances"]),
        (CS, joined.obsm["spahgc_cs"]),
        (RS, bank.obsp["spahgc_rs_connectivities"]),
    ):
        source, receiver = data[kind].edge_index.numpy()
        np.testing.assert_allclose(data[kind].edge_attr, np.asarray(graph[receiver, source]).ravel(), rtol=1e-6)
        assert len(source) == graph.nnz


@pytest.mark.parametrize("kind", [TS, RS])
def test_the_packages_layer_is_the_librarys_on_this_graph(joined, bank, kind):
    data = sp.pp.hetero_data(joined, bank)
    x = data[kind[0]].x
    own, theirs = MeanSAGE(x.shape[1]), SAGEConv(x.shape[1], x.shape[1], aggr="mean")
    theirs.lin_r.weight, theirs.lin_l.weight, theirs.lin_l.bias = own.own.weight, own.neighbours.weight, own.own.bias
    torch.testing.assert_close(own(x, own_edges(data, kind)), theirs(x, data[kind].edge_index), rtol=1e-5, atol=1e-5)


def test_a_network_of_ones_own_learns_on_it(joined, bank):
    data = sp.pp.hetero_data(joined, bank)
    layer = HeteroConv({kind: SAGEConv((-1, -1), 8) for kind in (TS, CS, RS)})
    out = layer(data.x_dict, data.edge_index_dict)
    assert out["target"].shape == (joined.n_obs, 8)
    out["target"].square().sum().backward()
    assert all(weight.grad is not None for name, weight in layer.named_parameters() if "rs" not in name)


def test_the_targets_counts_are_not_looked_at(joined, bank):
    expected = sp.pp.hetero_data(joined, bank)
    joined.X = np.full(joined.shape, np.nan, dtype=np.float32)
    found = sp.pp.hetero_data(joined, bank)
    assert found.node_types == expected.node_types
    for kind in (TS, CS, RS):
        assert torch.equal(found[kind].edge_index, expected[kind].edge_index)
    assert torch.equal(found["target"].x, expected["target"].x)
    assert not any(tensor.isnan().any() for tensor in (found["target"].x, found["reference"].y))


def test_a_bank_on_disk_gives_the_same_graph(joined, refs, tmp_path):
    opened = sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr")
    in_memory = sp.pp.reference_bank(refs)
    found, expected = sp.pp.hetero_data(joined, opened), sp.pp.hetero_data(joined, in_memory)
    torch.testing.assert_close(found["reference"].x, expected["reference"].x, rtol=1e-3, atol=1e-3)  # half precision
    torch.testing.assert_close(found["reference"].y, expected["reference"].y)


@pytest.mark.parametrize(
    ("where", "key", "message"),
    [
        ("obsp", "spatial_distances", r'obsp\["spatial_distances"\] not found.*pp\.spatial_graph'),
        ("obsm", "spahgc_cs", r'obsm\["spahgc_cs"\] not found.*pp\.cross_graph'),
    ],
)
def test_a_missing_graph_is_named_with_what_makes_it(joined, bank, where, key, message):
    del getattr(joined, where)[key]
    with pytest.raises(KeyError, match=message):
        sp.pp.hetero_data(joined, bank)


def test_a_cross_graph_to_another_bank_is_refused(joined, refs):
    with pytest.raises(ValueError, match="leads to .* reference spots, the bank holds"):
        sp.pp.hetero_data(joined, sp.pp.reference_bank(refs[:2]))


def test_references_that_are_no_bank_are_refused(joined, refs):
    with pytest.raises(ValueError, match="no bank of references"):
        sp.pp.hetero_data(joined, refs[0])
