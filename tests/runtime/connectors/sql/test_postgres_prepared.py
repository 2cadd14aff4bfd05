"""What is prepared, when, and what makes room."""

from vastar_runtime.connectors.sql.postgres_prepared import PreparedStatements


def key(number: int, *types: int) -> tuple[bytes, tuple[int, ...]]:
    return f"select {number}".encode(), types


def test_the_third_use_prepares():
    some = PreparedStatements(5)
    assert [some.is_due(key(1)) for _ in range(3)] == [False, False, True]
    name = some.new_name()
    assert some.keep(key(1), name) is None
    assert some.name_of(key(1)) == name
    assert some.name_of(key(1, 23)) is None
    assert len(some) == 1
    assert some.new_name() != name


def test_the_one_not_used_for_the_longest_makes_room():
    some = PreparedStatements(2, uses=1)
    for number in (1, 2):
        assert some.keep(key(number), str(number).encode()) is None
    some.name_of(key(1))
    assert some.keep(key(3), b"3") == b"2"
    assert some.name_of(key(2)) is None
    assert some.forget() == [b"1", b"3"]
    assert some.forget() == []


def test_counts_are_bounded_too():
    some = PreparedStatements(2)
    for number in range(10):
        for _ in range(2):
            assert not some.is_due(key(number))
    assert not some.is_due(key(0))
    assert len(some._counts) == 2


def test_what_is_never_prepared():
    assert not any(PreparedStatements(0).is_due(key(1)) for _ in range(9))
    some = PreparedStatements(5)
    assert not any(some.is_due((b"x" * 20_000, ())) for _ in range(9))
