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
        st.sampled_from(["attach", "attach", "detach", "owe", "die", "wait"]),
        st.integers(0, 1),
        keys,
    ),
    max_size=80,
)


class Compared:
    """Two tables over one memory, beside a dictionary: where, whose, worth until when."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.tables = [Table(memory, worker) for worker in range(2)]
        self.now_s = 100.0
        self.model: dict[object, tuple[int, set[int], float]] = {}

    def attach(self, worker, key):
        known = self.model.get(key)
        at = self.tables[worker].attach(self.now_s, *key)
        if known is not None:
            assert at == known[0]
            known[1].add(worker)
        elif at is None:
            assert len(self.model) == self.memory.layout.capacity
        else:
            if len(self.model) == self.memory.layout.capacity:
                self.drop_worthless()
            self.model[key] = (at, {worker}, 0.0)

    def detach(self, worker, key):
        if key in self.model and worker in self.model[key][1]:
            self.tables[worker].detach(self.now_s, self.model[key][0])
            self.model[key][1].discard(worker)
            self.drop_worthless(key)

    def owe(self, worker, key):
        if key in self.model and worker in self.model[key][1]:
            at, owners, _ = self.model[key]
            self.memory.times[at + RecordWord.KEEP_UNTIL] = self.now_s + 15.0
            self.model[key] = (at, owners, self.now_s + 15.0)

    def die(self, worker, _key):
        touched = [key for key, (_, owners, _) in self.model.items() if worker in owners]
        for key in touched:
            self.model[key][1].discard(worker)
            self.drop_worthless(key)
        with self.memory.table_lock:
            self.tables[0].detach_all(self.now_s, worker)
            free = self.tables[0].rebuild_free()
        assert free == self.memory.words[Header.USED] - len(self.model)

    def wait(self, _worker, _key):
        self.now_s += 10.0

    def drop_worthless(self, *keys):
        for key in keys or tuple(self.model):
            _, owners, until_s = self.model[key]
            if not owners and until_s <= self.now_s:
                del self.model[key]

    def check(self):
        assert len({at for at, _, _ in self.model.values()}) == len(self.model)
        assert self.tables[0].count() == len(self.model)


@given(steps, st.sampled_from([1, 2, 8, 64]))
def test_any_steps_are_those_of_a_dictionary(taken, capacity):
    with Memory.temporary(2, capacity) as memory:
        both = Compared(memory)
        for what, worker, key in taken:
            getattr(both, what)(worker, key)
            both.check()


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
