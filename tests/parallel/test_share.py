"""What of a network each rank has."""

from dataclasses import replace

import pytest

from haast.bench.tables import survey
from haast.config import ConfigError
from haast.model.config_file import read_model_config
from haast.model.layouts import role_axes
from haast.model.locate import packaged_folder
from haast.parallel.share import shares_of

MODELS = ["gpt-oss-20b", "gpt-oss-120b"]


def config_of(name):
    return read_model_config(packaged_folder(name) / "config.json")


@pytest.mark.parametrize(
    "size, inner",
    [(1, [2880]), (2, [1440] * 2), (4, [736, 736, 704, 704]), (8, [384] * 2 + [352] * 6)],
)
@pytest.mark.parametrize("name", MODELS)
def test_gpt_oss(name, size, inner):
    shares = shares_of(config_of(name), None, size)
    local = [share.local for share in shares]
    assert [model.intermediate_size for model in local] == inner
    assert {(m.num_heads, m.num_kv_heads) for m in local} == {(64 // size, 8 // size)}
    assert {m.hidden_size for m in local} == {2880}
    assert [share.vocabulary for share in shares] == [
        (rank * 201088 // size, (rank + 1) * 201088 // size) for rank in range(size)
    ]


@pytest.mark.parametrize("size", [2, 4, 8])
def test_parts_cover_every_role_once(size):
    config = config_of("gpt-oss-20b")
    shares = shares_of(config, None, size)
    split = set()
    for role, axes in role_axes(config).items():
        cuts = [share.cut(role) for share in shares]
        if cuts[0] is None:
            assert cuts == [None] * size
            continue
        split.add(role)
        (axis,) = {cut.axis for cut in cuts}
        covered = sorted(at for cut in cuts for pair in cut.ranges for at in range(*pair))
        assert covered == [*range(axes[axis].size)]
    whole = {"attn_norm", "mlp_norm", "norm", "embedding", "router_weight", "router_bias"}
    assert {*role_axes(config)} - split == whole | {"out_bias", "down_bias"}


def test_a_key_value_head_is_where_its_queries_are():
    config = config_of("gpt-oss-20b")
    (q, k, v) = shares_of(config, None, 4)[1].cut("qkv_weight").ranges
    assert q == (16 * 64, 32 * 64)
    assert k == (64 * 64 + 2 * 64, 64 * 64 + 4 * 64)
    assert v == (72 * 64 + 2 * 64, 72 * 64 + 4 * 64)
    assert shares_of(config, None, 4)[1].cut("sinks").ranges == ((16, 32),)


def test_biases_are_added_once():
    first, second = shares_of(config_of("gpt-oss-20b"), None, 2)
    roles = role_axes(first.config)
    assert [role for role in roles if first.is_zero(role)] == []
    assert [role for role in roles if second.is_zero(role)] == ["out_bias", "down_bias"]


@pytest.mark.parametrize(
    "size, changes, why",
    [
        (3, {}, "8 key-value heads cannot be split over 3"),
        (16, {}, "8 key-value heads cannot be split over 16"),
        (2, {"vocab_size": 301}, "301 tokens of a vocabulary cannot be split over 2"),
        (4, {"intermediate_size": 96}, "the 3 groups of 32 of an expert's intermediate size 96"),
    ],
)
def test_a_count_that_does_not_split(size, changes, why):
    with pytest.raises(ConfigError) as error:
        shares_of(replace(config_of("gpt-oss-20b"), **changes), "gpu:0,1", size)
    assert str(error.value).startswith(f"devices 'gpu:0,1': {why}")
    assert str(error.value).endswith(f"cannot be split over {size}")


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("name", MODELS)
def test_kernels_take_the_shapes_of_every_rank(name, size):
    shares = shares_of(config_of(name), None, size)
    whole = launched(shares[0].config)
    assert ("moe_down", 17) in whole
    for model in {share.local for share in shares}:
        found = launched(model)
        assert found.keys() == whole.keys() and None not in found.values()


def launched(config):
    """(op, tokens) -> the implementation that runs, None if none does."""
    return {
        (op.name, table.num_tokens): next((v.name for v in table.verdicts if v.runs), None)
        for op, tables in survey(config, (1, 17, 2048))
        for table in tables
    }
