"""The interest learned from choices: that it learns, and that no answer helps to tell itself."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from reranker.learned_interest import Choices, learn
from reranker.learned_interest.choices import hold_out
from reranker.learned_interest.signals import NAMES, Signals
from reranker.learned_interest.words import word_vectors

PRODUCTS = 60


def choices_of(*sequences: tuple[int, list[int]], products: int = PRODUCTS) -> Choices:
    """Make choices of pairs of a shopper and what they chose."""
    rows = [(n, user, each) for n, (user, ids) in enumerate(sequences) for each in ids]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return Choices.of(columns[0], columns[1], columns[2], products)


def in_groups(shoppers: int, seed: int = 0) -> Choices:
    """Make shoppers who stay in one of six groups of ten products."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(shoppers):
        own = rng.permutation(10)[:5] + 10 * rng.integers(6)
        rows.append((user, own.tolist()))
    return choices_of(*rows)


def test_it_learns_what_goes_together() -> None:
    model = learn(in_groups(300), [f"thing {n}" for n in range(PRODUCTS)])
    assert model is not None
    assert model.examples == 100
    fresh = in_groups(200, seed=9)
    first = 0
    for user in range(200):
        own = fresh.product[fresh.user == user]
        rng = np.random.default_rng(user)
        others = rng.permutation(np.flatnonzero(np.arange(PRODUCTS) // 10 != own[-1] // 10))[:19]
        scores = model.of(own[:-1], np.array([own[-1], *others]))
        assert ((scores >= 0) & (scores <= 1)).all()
        first += int(scores.argmax() == 0)
    assert first > 180
    assert set(model.described()) == set(NAMES)


def test_it_is_calibrated_on_lists_like_those_it_learned_from() -> None:
    model = learn(in_groups(600), [""] * PRODUCTS)
    assert model is not None
    fresh, rng = in_groups(400, seed=5), np.random.default_rng(1)
    scores = []
    for user in range(400):
        own = fresh.product[fresh.user == user]
        others = rng.choice(np.delete(np.arange(PRODUCTS), own[-1]), 19)
        scores.append(model.of(own[:-1], np.array([own[-1], *others])))
    # One of twenty is the answer: the chances of a list add up to about 1.
    assert np.mean(np.sum(scores, axis=1)) == pytest.approx(1.0, abs=0.15)


def test_purchases_at_random_teach_nothing() -> None:
    rng = np.random.default_rng(2)
    noise = choices_of(*[(u, rng.permutation(PRODUCTS)[:4].tolist()) for u in range(900)])
    model = learn(noise, [""] * PRODUCTS)
    assert model is not None
    places = []
    for _ in range(500):
        drawn = rng.permutation(PRODUCTS)[:23]
        scores = model.of(drawn[:3], drawn[3:])
        places.append(int((scores > scores[0]).sum()))
    assert np.mean(places) == pytest.approx(9.5, abs=1.0)


def test_an_answer_is_taken_out_of_all_that_is_counted() -> None:
    rows = [(user, [user, 50 + user % 3]) for user in range(30)]
    again = [(user, [50 + user % 3, user]) for user in range(30)]  # the answer is in the past, too
    held = hold_out(choices_of(*rows, *again), 1000, np.random.default_rng(0))
    assert len(held.answers) == 10
    for history, answer in zip(held.histories, held.answers.tolist(), strict=True):
        assert history.tolist() == [50 + answer % 3]
        assert not ((held.rest.user == answer) & (held.rest.product == answer)).any()
    assert len(held.rest.product) == 120 - 2 * 10


def test_a_repeated_choice_stays_in_what_was_chosen_before() -> None:
    held = hold_out(choices_of(*[(u, [1, 2, 1]) for u in range(3)]), 9, np.random.default_rng(0))
    assert held.histories[0].tolist() == [1, 2]
    counts = np.bincount(held.rest.user)
    (user,) = np.flatnonzero(counts == 2)
    assert held.rest.product[held.rest.user == user].tolist() == [1, 2]


def test_too_little_to_learn_from() -> None:
    assert learn(in_groups(59), [""] * PRODUCTS) is None
    assert learn(choices_of(), [""] * PRODUCTS) is None
    assert learn(in_groups(60), [""] * PRODUCTS) is not None


def test_the_same_choices_give_the_same_model() -> None:
    one, same, other = (learn(in_groups(120), ["a"] * PRODUCTS, seed=s) for s in (1, 1, 2))
    assert one is not None
    assert same is not None
    assert other is not None
    history, products = np.array([3, 4]), np.arange(PRODUCTS)
    assert (one.of(history, products) == same.of(history, products)).all()
    assert (one.of(history, products) != other.of(history, products)).any()


def test_signals_by_hand() -> None:
    known = choices_of((0, [0, 1]), (1, [0, 1, 2]), (2, [2, 3]), (2, [2, 3]), products=5)
    words = word_vectors(["red mug", "blue mug", "red lamp", "chair", ""])
    found = Signals.count(known, words).of((np.array([0, 0]),), np.array([[1, 2, 4, 0]]))[0]
    column = {name: found[:, n] for n, name in enumerate(NAMES)}
    assert column["popularity"] == pytest.approx(np.log1p([2, 2, 0, 2]))
    cosine = np.array([1.0, 0.0, 0.0, 1.0])  # one shopper alone bought 0 and 2
    assert column["bought with the latest: the last"] == pytest.approx(np.sqrt(cosine))
    assert column["bought with the latest: sum"] == pytest.approx(np.sqrt(cosine))
    assert column["bought next after the last"] == pytest.approx(np.log1p([2, 0, 0, 0]))
    assert column["chosen before"] == pytest.approx(np.log1p([0, 0, 0, 2]))
    assert column["alike in words: the last"][3] == pytest.approx(1.0)
    assert column["alike in words: the last"][2] == 0.0
    none = Signals.count(known, words).of((np.array([], np.int64),), np.array([[1, 4]]))[0]
    assert none[:, 2:].tolist() == np.zeros((2, len(NAMES) - 2)).tolist()


def test_a_whole_catalogue_is_looked_up_like_single_products() -> None:
    signals = Signals.count(
        in_groups(50), word_vectors([f"a{n % 5} b{n % 3}" for n in range(PRODUCTS)])
    )
    for history in (np.array([1, 2, 31]), np.array([], np.int64)):
        whole = signals.of((history,), np.arange(PRODUCTS)[None])[0]
        few = signals.of((history, history), np.array([[4, 7], [50, 4]]))
        assert whole[[4, 7]] == pytest.approx(few[0])
        assert whole[[50, 4]] == pytest.approx(few[1])


def test_words_of_scripts_without_spaces_go_by_pairs() -> None:
    rows = word_vectors(["红色杯子", "蓝色杯子", "椅子", "mug"])
    alike = (rows @ rows.T).toarray()
    assert alike[0, 1] > 0.2
    assert alike[0, 3] == 0.0
    assert isinstance(rows, csr_matrix)
