"""Readable answers out of nothing: deterministic from the prompt and the seed.

Sentences from a small stock, chosen by a generator seeded with a digest, round the words of the
prompt itself. They are not all ASCII, so that a cut in the middle of a character would show. The
second turn and later ones say so, which lets a test see that the history was sent.
"""

import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import cycle, islice

import attrs

_OPENINGS = (
    "Let us look at {topic} — step by step.",
    "A fair question: {topic} is simpler than it looks… once it is taken apart.",
    "Here is what I can say about {topic}, naïve as it may sound.",
    "“{topic}” came up in the café only this morning, so the answer is fresh ☕.",
)
_MIDDLES = (
    "Start small → measure → then decide.",
    "The first part costs little, perhaps 3 € and an afternoon; the second needs patience.",
    "In Zürich they would draw it on paper first, and they would be right.",
    "Most of the trouble comes from the edges, not from the middle.",
    "Two things matter here: what goes in, and what is allowed to come out.",
    "A good rule of thumb: ½ of the work is naming the parts well.",
    "Some call it 東京 style: quiet, exact and on time.",
    "If a step takes longer than ≈ 10 minutes, split it.",
    "Keep a note of what you tried, even of what failed.",
    "The exception proves nothing, but it is worth a look all the same.",
    "Señor Ibáñez put it best: do less, but finish it.",
    "Where the numbers disagree with the plan, trust the numbers.",
)
_CLOSINGS = (
    "That is {topic} in short ✓.",
    "Ask again about {topic} when you have tried it — I shall be here.",
    "More than that I would not promise about {topic} 🙂.",
)
_NO_TOPIC = "this"
_NO_TOPICS = frozenset(("about", "does", "from", "have", "tell", "that", "this", "what", "with"))
_TOPIC_WORDS = 2
_TO_ASCII = str.maketrans(
    {"—": "-", "…": "...", "→": "->", "“": '"', "”": '"', "≈": "~", "€": "EUR"}
)


@attrs.frozen
class Prompt:
    """What was said so far: the user's turns, and the text of everything."""

    turns: tuple[str, ...]
    everything: str


def source_of_chance(everything: str, seed: int) -> random.Random:
    """A generator that the same prompt and the same seed always start in the same state."""
    digest = blake2b(f"{seed}\0{everything}".encode("utf-8", "replace"), digest_size=8).digest()
    return random.Random(int.from_bytes(digest))  # noqa: S311 - prose, not secrets


def answer(prompt: Prompt, seed: int, words: int) -> str:
    """A few sentences, or exactly `words` words where that is not 0."""
    chance = source_of_chance(prompt.everything, seed)
    topic = _topic(prompt.turns[-1] if prompt.turns else "")
    middles = chance.sample(_MIDDLES, k=len(_MIDDLES))
    sentences = [chance.choice(_OPENINGS).format(topic=topic)]
    if len(prompt.turns) > 1:
        first = _topic(prompt.turns[0])
        sentences.append(f"This is turn {len(prompt.turns)} of our talk, which began with {first}.")
    if words:
        text = " ".join([*sentences, *middles]).split(" ")
        return " ".join(islice(cycle(text), words))
    sentences += middles[: chance.randint(2, 4)]
    sentences.append(chance.choice(_CLOSINGS).format(topic=topic))
    return " ".join(sentences)


def to_ascii(text: str) -> str:
    """The nearest text that has one byte per character; what has no such form is left out."""
    plain = unicodedata.normalize("NFKD", text.translate(_TO_ASCII))
    return plain.encode("ascii", "ignore").decode("ascii")


def pieces(text: str, most_bytes: int) -> Iterator[str]:
    """`text` in pieces of `most_bytes` UTF-8 bytes, less where a character would be cut."""
    data = text.encode()
    start = 0
    while start < len(data):
        end = start + most_bytes
        while end < len(data) and data[end] & 0xC0 == 0x80:  # noqa: PLR2004 - inside a character
            end -= 1
        yield data[start:end].decode()
        start = end


def words_with_spaces(text: str) -> Sequence[str]:
    """`text` word by word, each with the space that follows it: joined, they are `text`."""
    return re.findall(r"\S+\s*", text)


def tokens(text: str) -> int:
    """About as many tokens as a real model would count: four bytes make one."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


def _topic(turn: str) -> str:
    words = {word for word in re.findall(r"[^\W\d_]{4,24}", turn) if word.lower() not in _NO_TOPICS}
    longest = sorted(words, key=lambda word: (-len(word), word))
    return " and ".join(longest[:_TOPIC_WORDS]) or _NO_TOPIC
