"""The table: who runs, who is refused and why, and that nothing falls back in silence."""

import pytest

from haast.ops import OPS, REFERENCE, Kernel, Op, pin


def double(x: int, step: int = 1) -> int:
    """The contract."""
    return -1


def kernel(name, answer, reason=None):
    def fn(x: int, step: int = 1) -> int:
        return answer

    return Kernel(name, fn, lambda x, step=1: reason, "")


def wants_even(x, step=1):
    return "odd" if x % 2 else None


def even(name, answer):
    return Kernel(name, kernel(name, answer).fn, wants_even, "")


def test_the_first_that_accepts_runs():
    op = Op("double", double, (even("small", 10), kernel("any", 20), kernel("never", 30)))
    assert op(4) == 10
    assert op(5) == 20
    assert op(x=4, step=3) == 10
    assert op.choose(5) is op.kernels[1].fn
    assert op.implementations == ("small", "any", "never", "reference")


def test_the_order_of_the_table_decides():
    rows = (kernel("any", 20), even("small", 10))
    assert Op("double", double, rows)(4) == 20


def test_lookup_error_lists_every_reason():
    op = Op("double", double, (even("small", 10), kernel("big", 20, "needs >= 256 rows, got 3")))
    with pytest.raises(LookupError) as error:
        op(3)
    assert str(error.value) == (
        "no kernel of double accepts this call: ['small: odd', 'big: needs >= 256 rows, got 3']"
    )


def test_an_empty_table_says_so():
    with pytest.raises(LookupError, match="no kernel of double accepts this call: none exists"):
        Op("double", double)(1)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_no_op_falls_back_to_its_reference(op):
    """Every kernel rejects everything: the reference must not step in."""
    nobody = Op(op.name, op.reference, (Kernel("none", op.reference, lambda *a, **k: "no", ""),))
    with pytest.raises(LookupError, match=f"no kernel of {op.name} accepts this call"):
        nobody.choose()
    with pin({op.name: REFERENCE}):
        assert nobody.choose() is op.reference


def test_names_are_unique():
    assert len({op.name for op in OPS}) == len(OPS)
    for op in OPS:
        assert len(set(op.implementations)) == len(op.implementations), op.name


def test_pin_by_name():
    op = Op("double", double, (kernel("first", 10), kernel("second", 20), even("third", 30)))
    with pin({"double": "second"}):
        assert op(1) == 20
    with pin({"double": REFERENCE}):
        assert op(1) == -1
    with pin({"other": "second"}):
        assert op(1) == 10


def test_a_pinned_kernel_may_still_refuse():
    op = Op("double", double, (kernel("first", 10), even("second", 20)))
    with (
        pin({"double": "second"}),
        pytest.raises(LookupError, match=r"double accepts this call: \['second: odd'\]"),
    ):
        op(1)


def test_a_pin_to_an_unknown_name_runs_nothing():
    op = Op("double", double, (kernel("first", 10),))
    with pin({"double": "frist"}), pytest.raises(LookupError):
        op(1)


def test_pins_nest_and_reset():
    op = Op("double", double, (kernel("first", 10), kernel("second", 20)))
    other = Op("other", double, (kernel("first", 11), kernel("second", 22)))
    with pin({"double": "second"}):
        with pin({"other": "second"}):
            assert (op(1), other(1)) == (20, 22)
            with pin({"double": REFERENCE}):
                assert (op(1), other(1)) == (-1, 22)
        assert (op(1), other(1)) == (20, 11)
        with pytest.raises(ZeroDivisionError), pin({"double": "first"}):
            raise ZeroDivisionError
        assert op(1) == 20
    assert (op(1), other(1)) == (10, 11)


def another_name(y: int, step: int = 1) -> int:
    return y


def another_default(x: int, step: int = 2) -> int:
    return x


def one_more(x: int, step: int = 1, more: int = 0) -> int:
    return x


def another_type(x: int, step: int = 1) -> float:
    return x


@pytest.mark.parametrize("fn", [another_name, another_default, one_more, another_type])
def test_a_signature_unlike_the_contracts(fn):
    with pytest.raises(TypeError) as error:
        Op("double", double, (kernel("good", 1), Kernel("bad", fn, wants_even, "")))
    assert str(error.value) == (
        "double: bad does not have the signature (x: int, step: int = 1) -> int"
    )


def test_pinning_an_unknown_name_says_which_there_are():
    op = Op("double", lambda x: 2 * x)
    with (
        pin({"double": "fastest"}),
        pytest.raises(LookupError, match="'fastest'; it has reference"),
    ):
        op(1)
