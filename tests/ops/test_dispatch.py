"""The table: who runs, who is refused and why, and that nothing falls back in silence."""

from dataclasses import replace

import pytest

from haast.ops import OPS, REFERENCE, Kernel, Op, Verdict, pin


def double(x: int, step: int = 1) -> int:
    """The contract."""
    return -1


def launches(x, step=1):
    """What a kernel launches depends on the call."""
    return (f"double_{step}",) if x else ()


def kernel(name, answer, reason=None):
    def fn(x: int, step: int = 1) -> int:
        return answer

    return Kernel(name, fn, lambda x, step=1: reason, launches, f"{name} is fast")


def wants_even(x, step=1):
    return "odd" if x % 2 else None


def even(name, answer):
    return replace(kernel(name, answer), rejects=wants_even)


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
    none = Kernel("none", op.reference, lambda *a, **k: "no", lambda *a, **k: (), "")
    nobody = Op(op.name, op.reference, (none,))
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
        Op("double", double, (kernel("good", 1), Kernel("bad", fn, wants_even, launches, "")))
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


MEANING = Verdict(
    REFERENCE, False, "runs only when pinned", (), "what the op means, in plain torch"
)
THREE = (even("small", 10), kernel("any", 20), kernel("never", 30, "too old"))


def test_table_when_the_first_accepts():
    """A kernel that would accept says what it would launch; one that rejects, only why."""
    assert Op("double", double, THREE).table(4, step=3) == [
        Verdict("small", True, None, ("double_3",), "small is fast"),
        Verdict("any", False, "small comes first", ("double_3",), "any is fast"),
        Verdict("never", False, "too old", (), "never is fast"),
        MEANING,
    ]


def test_table_when_the_first_rejects():
    assert Op("double", double, (*THREE, kernel("last", 40))).table(5) == [
        Verdict("small", False, "odd", (), "small is fast"),
        Verdict("any", True, None, ("double_1",), "any is fast"),
        Verdict("never", False, "too old", (), "never is fast"),
        Verdict("last", False, "any comes first", ("double_1",), "last is fast"),
        MEANING,
    ]


def test_table_when_nothing_accepts():
    assert Op("double", double).table(1) == [MEANING]
    verdicts = Op("double", double, (THREE[0], THREE[2])).table(1)
    assert [(v.name, v.runs, v.reason) for v in verdicts[:2]] == [
        ("small", False, "odd"),
        ("never", False, "too old"),
    ]


def test_a_kernel_that_launches_nothing_runs_all_the_same():
    (verdict, *_) = Op("double", double, THREE).table(0)
    assert (verdict.runs, verdict.symbols) == (True, ())


def test_table_does_not_look_at_pins():
    """It says what an unpinned call would run."""
    op = Op("double", double, THREE)
    with pin({"double": "any"}):
        assert op.table(4)[0].runs and op(4) == 20


def test_a_broken_contract_comes_through_the_table():
    def refuse(x, step=1):
        raise ValueError("x must be positive")

    op = Op("double", double, (replace(THREE[1], rejects=refuse),))
    with pytest.raises(ValueError, match="x must be positive"):
        op.table(-1)
