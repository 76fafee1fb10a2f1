"""Token buckets of one process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.limits.accounts import Accounts


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def spend(accounts: Accounts, queries: int, caller: str = "a") -> float:
    return accounts.take(caller, queries, min(queries, accounts.burst))


def test_an_account_fills_at_the_rate_up_to_the_burst() -> None:
    clock = Clock()
    accounts = Accounts(0.5, 2, clock)
    assert spend(accounts, 2) == 0
    assert spend(accounts, 1) == pytest.approx(2)
    clock.now = 2.0
    assert spend(accounts, 1) == 0
    clock.now = 1000.0
    assert spend(accounts, 2) == 0
    assert spend(accounts, 1) > 0


def test_callers_have_accounts_of_their_own() -> None:
    accounts = Accounts(1 / 60, 1, Clock())
    assert spend(accounts, 1, "a") == spend(accounts, 1, "b") == 0
    assert spend(accounts, 1, "a") > 0


def test_a_batch_above_the_burst_is_paid_for_afterwards() -> None:
    accounts = Accounts(1, 5, Clock())
    assert spend(accounts, 65) == 0
    assert spend(accounts, 1) == pytest.approx(61)
    assert spend(accounts, 0) == pytest.approx(60)


def test_what_is_put_back_is_there_up_to_the_burst() -> None:
    accounts = Accounts(1, 5, Clock())
    spend(accounts, 4)
    accounts.put("a", 2)
    assert accounts.level("a") == 3
    accounts.put("a", 9)
    assert accounts.level("a") == 5


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 30)), max_size=60))
def test_no_more_is_let_in_than_the_rate_allows(calls: list[tuple[float, int]]) -> None:
    clock = Clock()
    accounts = Accounts(2, 10, clock)
    spent = largest = 0
    for pause, queries in calls:
        clock.now += pause
        if wait := spend(accounts, queries):
            clock.now += wait  # who waits as told is let in
            queries = min(queries, 10)
            assert spend(accounts, queries) == 0
        spent, largest = spent + queries, max(largest, queries)
    assert spent <= 10 + 2 * clock.now + largest + 1e-6
