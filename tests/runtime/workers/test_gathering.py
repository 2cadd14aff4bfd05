"""One question to several, and the end of the wait."""

from vastar_runtime.workers.gathering import MAX_GATHERINGS, Gathered, Gatherings, Said


def begun(gatherings: Gatherings, *workers: int, due_s: float = 1.0) -> tuple[int, list[Gathered]]:
    results: list[Gathered] = []
    number = gatherings.begin(workers, due_s, results.append)
    assert number is not None
    return number, results


def test_it_is_over_when_all_have_answered():
    gatherings = Gatherings()
    number, results = begun(gatherings, 0, 1)
    other, others = begun(gatherings, 0, 1)
    gatherings.answered(number, 1, Said("b"))
    gatherings.answered(number, 1, Said("twice"))
    gatherings.answered(number, 7, Said("nobody asked"))
    gatherings.answered(99, 0, Said("nobody's"))
    assert not results
    gatherings.answered(number, 0, Said(fault="no"))
    assert results == [{0: Said(fault="no"), 1: Said("b")}]
    gatherings.answered(number, 0, Said("too late"))
    assert len(results) == 1
    assert not others
    assert len(gatherings) == 1
    assert other != number


def test_it_is_over_when_its_time_is():
    gatherings = Gatherings()
    number, results = begun(gatherings, 0, 1, due_s=5.0)
    assert gatherings.next_due_s() == 5.0
    gatherings.answered(number, 0, Said("a"))
    gatherings.tick(4.9)
    assert not results
    gatherings.tick(5.0)
    assert results == [{0: Said("a")}]
    assert gatherings.next_due_s() is None
    gatherings.tick(9.0)
    assert len(results) == 1


def test_the_dead_are_not_waited_for_but_what_they_said_counts():
    gatherings = Gatherings()
    number, results = begun(gatherings, 0, 1)
    gatherings.answered(number, 1, Said("b"))
    gatherings.gone(1)
    gatherings.gone(2)
    assert not results
    gatherings.gone(0)
    assert results == [{1: Said("b")}]


def test_a_question_to_nobody_is_answered_at_the_next_look():
    gatherings = Gatherings()
    _, results = begun(gatherings, due_s=5.0)
    assert not results
    assert gatherings.next_due_s() == 0.0
    gatherings.tick(1.0)
    assert results == [{}]


def test_there_is_an_end_to_questions():
    gatherings = Gatherings()
    for _ in range(MAX_GATHERINGS):
        begun(gatherings, 0)
    assert gatherings.begin([0], 1.0, lambda _: None) is None
    gatherings.tick(1.0)
    begun(gatherings, 0)


def test_who_asks_again_in_its_answer_begins_anew():
    gatherings = Gatherings()
    results: list[Gathered] = []

    def again(_: Gathered) -> None:
        gatherings.begin([1], 9.0, results.append)

    number = gatherings.begin([0], 1.0, again)
    assert number is not None
    gatherings.answered(number, 0, Said())
    assert gatherings.next_due_s() == 9.0
    gatherings.gone(1)
    assert results == [{}]
