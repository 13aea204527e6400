"""Texts that are more or less alike, and how much they are."""

import random

VOCABULARY = [f"w{i}" for i in range(500)]


def exact(a, b, words=3):
    """The definition: n-grams of words, a shorter text being one."""

    def grams(text):
        split = tuple(text.split())
        found = {split[i : i + words] for i in range(len(split) - words + 1)}
        return found or ({split} if split else set())

    return len(grams(a) & grams(b)) / max(1, len(grams(a) | grams(b)))


def families(count, size, changes, seed=0):
    """For each of `count` texts of `size` words, copies in which so many of the words are others."""
    draws = random.Random(seed)
    texts = []
    for _ in range(count):
        base = draws.choices(VOCABULARY, k=size)
        for changed in changes:
            places = set(draws.sample(range(size), changed))
            texts.append(" ".join(draws.choice(VOCABULARY) if i in places else word for i, word in enumerate(base)))
    return texts
