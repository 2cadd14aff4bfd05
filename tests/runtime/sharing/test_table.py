"""Records by key: a model of keys, and what a death leaves."""

from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.sharing.layout import Header, Kind, RecordWord
from vastar_runtime.sharing.memory import Memory
from vastar_runtime.sharing.table import Table

NAMES = [(), ("a",), ("b",), ("a", "b"), ("ab",), ("a", "", "b"), ("", "a"), ("\udcff",), ("1:a",)]
keys = st.tuples(st.sampled_from([Kind.BREAKER, Kind.COOLDOWN]), st.sampled_from(NAMES))
steps = st.lists(
    st.tuples(
        st.sampled_from(["attach", "attach", "detach", "owe", "die", "pass"]),
        st.integers(0, 1),
        keys,
    ),
    max_size=80,
)


@given(steps, st.sampled_from([1, 2, 8, 64]))
def test_any_steps_are_those_of_a_dictionary(taken, capacity):
    with Memory.temporary(2, capacity) as memory:
        tables = [Table(memory, worker) for worker in range(2)]
        now_s = 100.0
        model: dict[object, tuple[int, set[int], float]] = {}  # where, whose, worth until
        for what, worker, key in taken:
            known = model.get(key)
            if what == "pass":
                now_s += 10.0
            elif what == "attach":
                at = tables[worker].attach(now_s, *key)
                if at is None:
                    assert known is None
                    assert len(model) == capacity
                    assert all(owners or until > now_s for _, owners, until in model.values())
                elif known is None:
                    lost = [other for other, (where, _, _) in model.items() if where == at]
                    for other in lost:
                        assert not model[other][1]
                    for other in [
                        o for o, (_, own, until) in model.items() if not own and until <= now_s
                    ]:
                        if len(model) >= capacity:
                            del model[other]
                    model[key] = (at, {worker}, 0.0)
                else:
                    assert at == known[0]
                    known[1].add(worker)
            elif what == "die":
                with memory.table_lock:
                    tables[0].detach_all(now_s, worker)
                    assert tables[0].rebuild_free() == memory.words[Header.USED] - sum(
                        bool(own - {worker}) or until > now_s for _, own, until in model.values()
                    )
                for other, (_, own, until) in list(model.items()):
                    own.discard(worker)
                    if not own and until <= now_s:
                        del model[other]
            elif known is not None and worker in known[1]:
                at, owners, _ = known
                if what == "owe":
                    memory.times[at + RecordWord.KEEP_UNTIL] = now_s + 15.0
                    model[key] = (at, owners, now_s + 15.0)
                else:
                    tables[worker].detach(now_s, at)
                    owners.discard(worker)
                    if not owners and known[2] <= now_s:
                        del model[key]
            assert len({at for at, _, _ in model.values()}) == len(model)


def test_a_record_that_is_used_again_is_as_new():
    with Memory.temporary(2, 1) as memory:
        table = Table(memory, 0)
        at = table.attach(0.0, Kind.BREAKER, ("a",))
        assert at is not None
        for offset in range(RecordWord.ATTACHED + 1, RecordWord.WORDS):
            memory.words[at + offset] = 0
        for word in range(memory.layout.columns_at(at, 0), at + memory.layout.record_words):
            memory.words[word] = 9
        memory.words[at + RecordWord.VERSION] = 9
        table.detach(0.0, at)
        assert table.attach(0.0, Kind.BREAKER, ("b",)) == at
        assert memory.words[at + RecordWord.VERSION] == 0
        assert not any(
            memory.words[word]
            for word in range(memory.layout.columns_at(at, 0), at + memory.layout.record_words)
        )


def test_a_record_that_a_death_lost_is_found_again():
    with Memory.temporary(2, 4) as memory:
        table = Table(memory, 0)
        kept = table.attach(0.0, Kind.BREAKER, ("kept",))
        table._take_free(0.0)  # and dies before any chain leads to it
        assert table.count() == 2
        with memory.table_lock:
            assert table.rebuild_free() == 1
        assert table.count() == 1
        assert table.attach(0.0, Kind.BREAKER, ("kept",)) == kept


def test_one_that_died_between_chain_and_list_harms_nobody():
    with Memory.temporary(2, 4) as memory:
        table = Table(memory, 0)
        at = table.attach(0.0, Kind.BREAKER, ("a",))
        assert at is not None
        low = memory.words[at + RecordWord.KEY_LOW]
        memory.words[memory.layout.heads_at + (low & 3)] = 0  # taken off its chain, then dead
        with memory.table_lock:
            table.detach_all(0.0, 0)
            table.rebuild_free()
        assert table.count() == 0


def test_a_full_table_is_searched_now_and_then_only():
    with Memory.temporary(2, 1) as memory:
        table = Table(memory, 0)
        at = table.attach(0.0, Kind.BREAKER, ("a",))
        assert at is not None
        memory.times[at + RecordWord.KEEP_UNTIL] = 9.0
        table.detach(0.0, at)
        assert table.attach(8.0, Kind.BREAKER, ("b",)) is None
        assert table.attach(10.0, Kind.BREAKER, ("b",)) is None, "it was searched just now"
        assert table.attach(13.0, Kind.BREAKER, ("b",)) == at
