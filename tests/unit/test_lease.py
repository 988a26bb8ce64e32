"""The rules of leases as tables, and the traps that a fence exists for."""

# tokens are fences, and no passwords

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyscheduler import lease
from anyscheduler.clock import LAST_MICROS
from anyscheduler.lease import Change, Row, State
from anyscheduler.tokens import TokenSource

NOW = 1_000_000
LEASE = 60_000

FREE = Row("a:1", "a", NOW - 10, NOW - 10, "t0", '{"v":1}', "")
STATIC = Row("a", "a", NOW - 10, NOW - 10, "t0", "", lease.encode_state(State("every 0:00:05", NOW - 500)))


def same_but_for_the_token(row: Row | None, other: Row) -> bool:
    """Tells whether two rows hold the same under different fences."""
    return row is not None and row.token != other.token and row._replace(token=other.token) == other


def applied(stored: Row | None, change: Change) -> Row | None:
    """What a store makes of a change to the row that it holds; a refused change leaves the row as it is."""
    return change.row if (None if stored is None else stored.token) == change.expected else stored


# --- claiming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claimable_at", "claimable"),
    [(0, True), (NOW - 1, True), (NOW, True), (NOW + 1, False), (NOW + LEASE, False)],
)
def test_a_row_is_claimable_from_its_instant_on(claimable_at: int, claimable: bool) -> None:
    assert lease.is_claimable(FREE._replace(claimable_at=claimable_at), NOW) is claimable


def test_a_registered_row_is_claimable_when_it_is_due() -> None:
    row = lease.register("a:1", "a", NOW, "t0", spec='{"v":1}')

    assert row == Row("a:1", "a", NOW, NOW, "t0", '{"v":1}', "")
    assert not lease.is_claimable(row, NOW - 1)
    assert lease.is_claimable(row, NOW)
    assert lease.locked_until(row, NOW - 1) is None


def test_a_static_schedule_is_claimable_a_moment_before_it_is_due_and_until_then_nobody_holds_it() -> None:
    registered = lease.register("a", "a", NOW, "t0", state=STATIC.state)
    committed = lease.commit(STATIC._replace(due_at=NOW - 1_000_000), NOW, "t1").row

    for row in (registered, committed):
        assert row is not None
        assert (row.due_at, row.claimable_at) == (NOW, NOW - lease.HEAD_START)
        assert not lease.is_claimable(row, NOW - lease.HEAD_START - 1)
        assert lease.is_claimable(row, NOW - lease.HEAD_START)
        assert lease.locked_until(row, NOW - lease.HEAD_START - 1) is None
        assert lease.locked_until(lease.claim(row, NOW + 1, "t2"), NOW - 1) == NOW + 1
        # Whoever gives it back did not settle it: it is claimed when it is due, by anybody.
        assert lease.release(row, NOW, "t2").row == row._replace(claimable_at=NOW, token="t2.waiting")


@pytest.mark.parametrize(
    ("interval", "head_start"), [(1_000, 100), (50_000, 5_000), (99_999, 9_999), (100_000, 10_000), (10**12, 10_000)]
)
def test_of_a_short_interval_that_moment_is_a_tenth(interval: int, head_start: int) -> None:
    row = lease.commit(STATIC, STATIC.due_at + interval, "t1").row

    assert row is not None
    assert row.due_at - row.claimable_at == head_start


def test_a_claim_draws_a_token_and_hides_the_row_until_its_lease_ends() -> None:
    row = lease.claim(FREE, NOW + LEASE, "t1")

    assert row == FREE._replace(claimable_at=NOW + LEASE, token="t1")
    assert not lease.is_claimable(row, NOW + LEASE - 1)
    assert lease.is_claimable(row, NOW + LEASE)


# --- the traps --------------------------------------------------------------------------------------------------------


def test_an_extension_keeps_the_token_so_that_a_lost_reply_does_not_cut_the_execution_off() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")
    extended = lease.extend(mine, NOW + 2 * LEASE)
    stored = applied(mine, Change(mine.key, mine.token, extended))
    assert stored == extended

    # The reply never arrived: the execution still holds `mine`, and settles with that.
    assert applied(stored, lease.commit(mine, NOW + 500, "t2")) == FREE._replace(
        due_at=NOW + 500, claimable_at=NOW + 500, token="t2"
    )


def test_each_token_of_a_schedule_is_greater_than_the_one_before_though_it_was_drawn_earlier() -> None:
    drawn = lease.new_token(NOW, 5)
    rows = [lease.claim(FREE._replace(token=lease.new_token(NOW + LEASE, 9)), NOW + LEASE, drawn)]
    settled = lease.commit(rows[-1], NOW + 500, drawn)
    assert settled.row is not None
    rows += [settled.row, lease.claim(settled.row, NOW + LEASE, drawn)]
    given_back = lease.release(rows[-1], NOW, drawn).row
    assert given_back is not None
    rows += [given_back, lease.replace_spec(given_back, "{}", drawn), lease.claim(given_back, NOW + LEASE, drawn)]
    undone = lease.give_back(rows[-1], lease.commit(rows[-1], NOW, drawn), drawn).row
    assert undone is not None
    tokens = [row.token for row in (*rows[:4], rows[5], undone)]
    assert tokens == sorted(set(tokens))
    assert rows[4].token > rows[3].token
    assert len({len(token.removesuffix(".waiting")) for token in tokens}) == 1


def test_a_token_that_was_drawn_later_or_cannot_be_compared_is_taken_as_it_is() -> None:
    drawn = lease.new_token(NOW, 5)
    for stored in (lease.new_token(NOW - 1, 9), "", "t0", "zzzzzzzzzzzzzzzzzzzz", f"{drawn[:14]}"):
        assert lease.later_token(drawn, stored) == drawn
    assert lease.later_token("t0", drawn.replace("0", "z")) == "t0"


def test_an_extension_changes_the_end_of_the_lease_and_nothing_else() -> None:
    mine = lease.claim(STATIC, NOW + LEASE, "mine")

    assert lease.extend(mine, NOW + 7 * LEASE) == mine._replace(claimable_at=NOW + 7 * LEASE)


def test_a_lease_that_ended_is_not_extended_once_somebody_else_has_claimed() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")
    theirs = lease.claim(mine, NOW + 2 * LEASE, "theirs")

    assert applied(theirs, Change(mine.key, mine.token, lease.extend(mine, NOW + 9 * LEASE))) == theirs


def test_a_lease_that_ended_is_extended_while_nobody_else_has_claimed() -> None:
    mine = lease.claim(FREE, NOW - 1, "mine")

    stored = applied(mine, Change(mine.key, mine.token, lease.extend(mine, NOW + LEASE)))

    assert stored is not None
    assert stored.claimable_at == NOW + LEASE


@pytest.mark.parametrize("name", ["commit", "end", "release", "extend"])
def test_an_execution_that_was_overtaken_changes_nothing(name: str) -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")
    theirs = lease.claim(mine, NOW + 2 * LEASE, "theirs")
    late = {
        "commit": lease.commit(mine, NOW + 500, "late"),
        "end": lease.commit(mine, None, "late"),
        "release": lease.release(mine, NOW, "late"),
        "extend": Change(mine.key, mine.token, lease.extend(mine, NOW + 9 * LEASE)),
    }[name]

    assert applied(theirs, late) == theirs


def test_a_schedule_that_was_removed_and_registered_again_refuses_the_result_of_the_old_one() -> None:
    # With a counter as fence both registrations begin at the same number, and the claims after them draw the next one:
    # the late commit would find "its" number, and apply.
    mine = lease.claim(lease.register("a:1", "a", NOW, "t0"), NOW + LEASE, "t1")
    removed = applied(mine, Change(mine.key, mine.token, None))
    assert removed is None
    again = applied(removed, Change(mine.key, None, lease.register("a:1", "a", NOW + 7, lease.new_token(NOW, 1))))
    assert again is not None
    assert applied(again, lease.commit(mine, NOW + 500, "late")) == again

    claimed_again = lease.claim(again, NOW + LEASE, lease.new_token(NOW, 2))
    assert applied(claimed_again, lease.commit(mine, NOW + 500, "late")) == claimed_again


def test_a_schedule_that_was_replaced_while_it_ran_refuses_the_result() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")
    forced = applied(mine, Change(mine.key, mine.token, lease.register("a:1", "a", NOW + 7, "forced")))
    assert forced is not None

    assert applied(forced, lease.commit(mine, NOW + 500, "late")) == forced


def test_a_schedule_that_was_removed_while_it_ran_does_not_come_back_with_its_result() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")

    assert applied(None, lease.commit(mine, NOW + 500, "late")) is None
    assert applied(None, lease.release(mine, NOW, "late")) is None


actions = st.tuples(
    st.sampled_from(["claim", "extend", "commit", "release", "replace", "remove", "register", "wait"]),
    st.integers(0, 2),
    st.integers(1, 200),
)


@given(st.lists(actions, max_size=40))
def test_whatever_several_processes_do_only_the_last_who_claimed_can_settle(steps: list[tuple[str, int, int]]) -> None:
    now = NOW
    stored: Row | None = FREE
    held: dict[int, Row] = {}
    holder: int | None = None  # who claimed last, with nothing having happened to the row since
    for number, (action, who, amount) in enumerate(steps):
        token = lease.new_token(now, number)
        mine = held.get(who)
        match action:
            case "wait":
                now += amount
            case "claim" if stored is not None and lease.is_claimable(stored, now):
                stored = held[who] = lease.claim(stored, now + amount, token)
                holder = who
            case "register" if stored is None:
                stored, holder = lease.register("a:1", "a", now, token), None
            case "replace" if stored is not None:
                stored, holder = lease.replace_spec(stored, "{}", token), None
            case "remove":
                stored, holder = None, None
            case "extend" | "commit" | "release" if mine is not None:
                change = {
                    "extend": Change(mine.key, mine.token, lease.extend(mine, now + amount)),
                    "commit": lease.commit(mine, now + amount if amount % 5 else None, token),
                    "release": lease.release(mine, now + amount, token),
                }[action]
                before = stored
                after = applied(stored, change)
                if who == holder:
                    assert after == change.row
                    if action != "extend":
                        holder = None
                else:
                    assert after == before
                stored = after
            case _:
                pass
        # A row never becomes claimable before it is due.
        assert stored is None or stored.claimable_at >= min(stored.due_at, now)


# --- settling ---------------------------------------------------------------------------------------------------------


def test_a_commit_makes_the_row_due_at_its_next_time_and_free() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")

    assert lease.commit(mine, NOW + 500, "t2") == Change(
        "a:1", "mine", Row("a:1", "a", NOW + 500, NOW + 500, "t2", '{"v":1}', "")
    )


def test_a_commit_may_leave_the_next_occurrence_overdue() -> None:
    change = lease.commit(lease.claim(FREE, NOW + LEASE, "mine"), NOW - 5, "t2")

    assert change.row is not None
    assert lease.is_claimable(change.row, NOW)


def test_a_commit_without_a_next_time_removes_the_row() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")

    assert lease.commit(mine, None, "t2") == Change("a:1", "mine", None)


def test_a_commit_remembers_the_last_occurrence_of_a_static_schedule_and_its_fingerprint() -> None:
    change = lease.commit(lease.claim(STATIC, NOW + LEASE, "mine"), NOW + 500, "t2")

    assert change.row is not None
    assert lease.decode_state(change.row.state) == State("every 0:00:05", STATIC.due_at)


def test_a_commit_after_a_second_attempt_forgets_the_wait() -> None:
    for row in (FREE, STATIC):
        waiting = lease.release(lease.claim(row, NOW + LEASE, "t1"), NOW + 100, "t2").row
        assert waiting is not None
        change = lease.commit(lease.claim(waiting, NOW + LEASE, "t3"), NOW + 500, "t4")
        assert change.row is not None
        assert change.row.token == "t4"
        assert lease.locked_until(change.row, NOW) is None
        assert lease.locked_until(lease.claim(change.row, NOW + LEASE, "t5"), NOW) == NOW + LEASE


def test_a_release_gives_the_occurrence_back_at_once() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")

    change = lease.release(mine, mine.due_at, "t2")

    assert (change.key, change.expected) == ("a:1", "mine")
    assert same_but_for_the_token(change.row, FREE)


def test_a_release_never_makes_a_row_claimable_before_it_is_due() -> None:
    early = lease.claim(FREE._replace(due_at=NOW + 50), NOW + LEASE, "mine")

    change = lease.release(early, 0, "t2")

    assert same_but_for_the_token(change.row, FREE._replace(due_at=NOW + 50, claimable_at=NOW + 50))


@pytest.mark.parametrize("row", [FREE, STATIC])
def test_a_release_for_another_attempt_later_keeps_the_due_time(row: Row) -> None:
    change = lease.release(lease.claim(row, NOW + LEASE, "mine"), NOW + 100, "t2")

    assert same_but_for_the_token(change.row, row._replace(claimable_at=NOW + 100))
    assert change.row is not None
    assert lease.locked_until(change.row, NOW) is None


def test_other_arguments_leave_the_next_run_and_a_lease_where_they_are() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")

    assert lease.replace_spec(mine, '{"v":1,"args":{}}', "t2") == mine._replace(spec='{"v":1,"args":{}}', token="t2")


def test_other_arguments_do_not_turn_a_wait_for_another_attempt_into_a_lease() -> None:
    waiting = lease.release(lease.claim(FREE, NOW + LEASE, "mine"), NOW + 100, "t2").row
    assert waiting is not None

    replaced = lease.replace_spec(waiting, "{}", "t3")

    assert replaced.token != waiting.token
    assert replaced.claimable_at == NOW + 100
    assert lease.locked_until(replaced, NOW) is None
    # Nor does a second time.
    assert lease.locked_until(lease.replace_spec(replaced, "{}", "t4"), NOW) is None


def test_other_arguments_do_not_turn_a_lease_into_a_wait() -> None:
    waiting = lease.release(lease.claim(FREE, NOW + LEASE, "mine"), NOW, "t2").row
    assert waiting is not None
    leased = lease.claim(waiting, NOW + LEASE, "t3")

    assert lease.locked_until(lease.replace_spec(leased, "{}", "t4"), NOW) == NOW + LEASE


def test_every_change_but_an_extension_draws_another_token() -> None:
    row = lease.claim(FREE, NOW + LEASE, "mine")
    drawn = [
        lease.claim(row, NOW, "t1"),
        lease.commit(row, NOW, "t2").row,
        lease.release(row, NOW, "t3").row,
        lease.replace_spec(row, "", "t4"),
        lease.give_back(row, lease.commit(row, NOW, "t2"), "t5").row,
    ]
    tokens = [changed.token for changed in drawn if changed is not None]

    assert [token[:2] for token in tokens] == ["t1", "t2", "t3", "t4", "t5"]


def test_a_start_that_never_happened_is_given_back_as_it_was_claimed() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")
    for started in (
        lease.commit(mine, NOW + 500, "next"),
        lease.commit(mine, None, "next"),
        Change(mine.key, mine.token, lease.extend(mine, NOW + 9 * LEASE)),
    ):
        stored = applied(mine, started)
        assert applied(stored, lease.give_back(mine, started, "back")) == FREE._replace(token="back")


def test_a_start_is_not_given_back_over_what_came_after_it() -> None:
    mine = lease.claim(FREE, NOW + LEASE, "mine")
    started = lease.commit(mine, NOW + 500, "next")
    assert started.row is not None
    other = lease.claim(started.row, NOW + 900, "other")

    assert applied(other, lease.give_back(mine, started, "back")) == other


# --- damaged rows -----------------------------------------------------------------------------------------------------


def test_a_damaged_row_is_set_aside_with_everything_that_it_holds() -> None:
    damaged = lease.claim(FREE._replace(spec="{damaged", state="{damaged too"), NOW + LEASE, "mine")

    change = lease.release(damaged, NOW + 5, "t2")

    assert (change.key, change.expected) == ("a:1", "mine")
    assert same_but_for_the_token(change.row, damaged._replace(claimable_at=NOW + 5))


def test_a_row_whose_due_time_is_nonsense_is_set_aside_until_then() -> None:
    row = FREE._replace(due_at=2**62)

    change = lease.release(row, NOW + 5, "t2")

    assert change.row is not None
    assert change.row.claimable_at == 2**62


@pytest.mark.parametrize(
    "row",
    [
        FREE._replace(spec="{damaged"),
        STATIC._replace(task="gone"),
        lease.release(FREE, NOW - 5, "t1").row,
        FREE._replace(state="{damaged"),
    ],
    ids=["spec", "static", "after a wait", "state"],
)
def test_a_row_that_was_set_aside_is_held_by_nobody_and_can_be_registered_anew(row: Row) -> None:
    change = lease.release(lease.claim(row, NOW + LEASE, "mine"), NOW + LEASE, "t2")

    assert change.row is not None
    assert lease.locked_until(change.row, NOW) is None


# --- who holds it -----------------------------------------------------------------------------------------------------


def test_a_lease_is_told_from_every_other_reason_to_wait() -> None:
    not_due = FREE._replace(due_at=NOW + 50, claimable_at=NOW + 50)
    leased = lease.claim(FREE, NOW + LEASE, "mine")
    ended = lease.claim(FREE, NOW, "mine")
    waiting = lease.release(leased, NOW + 100, "t2").row
    assert waiting is not None
    leased_again = lease.claim(waiting, NOW + 100 + LEASE, "t3")

    assert lease.locked_until(FREE, NOW) is None
    assert lease.locked_until(not_due, NOW) is None
    assert lease.locked_until(leased, NOW) == NOW + LEASE
    assert lease.locked_until(ended, NOW) is None
    assert lease.locked_until(waiting, NOW) is None
    assert lease.locked_until(leased_again, NOW + 100) == NOW + 100 + LEASE


# --- state ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), ""),
        (State(last=7), '{"last":7}'),
        (State("cron", 7), '{"fingerprint":"cron","last":7}'),
    ],
)
def test_a_state_is_stored_as_what_differs_from_the_empty_one(state: State, text: str) -> None:
    assert lease.encode_state(state) == text
    assert lease.decode_state(text) == state


@given(st.builds(State, st.text(), st.integers(0, 2**57)))
def test_every_state_comes_back_as_it_was_stored(state: State) -> None:
    assert lease.decode_state(lease.encode_state(state)) == state


def test_fields_of_a_later_version_are_ignored() -> None:
    assert lease.decode_state('{"last":7,"mood":"good"}') == State(last=7)


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "{",
        "null",
        "5",
        "[]",
        '"last"',
        '{"last":"7"}',
        '{"last":7.0}',
        '{"last":true}',
        '{"last":null}',
        '{"last":[]}',
        '{"fingerprint":5}',
        '{"fingerprint":null}',
        '{"last":' + "9" * 5_000 + "}",
        "[" * 100_000,
        '{"last":' * 100_000,
    ],
)
def test_a_damaged_state_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        lease.decode_state(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)


@given(
    json_values | st.fixed_dictionaries({}, optional=dict.fromkeys(("fingerprint", "last"), json_values)),
    st.integers(0, 30),
)
def test_whatever_is_stored_as_a_state_is_a_state_or_a_value_error(value: object, cut: int) -> None:
    text = json.dumps(value)
    for stored in (text, text[cut:], text[:cut]):
        try:
            state = lease.decode_state(stored)
        except ValueError:
            continue
        assert [type(field) for field in state] == [str, int]


# --- tokens -----------------------------------------------------------------------------------------------------------

nows = st.integers(0, LAST_MICROS)
bits = st.integers(0, 2**64 - 1)


@given(nows, nows, bits, bits)
def test_a_later_token_is_the_greater_text(one: int, other: int, one_random: int, other_random: int) -> None:
    first, second = lease.new_token(one, one_random), lease.new_token(other, other_random)

    assert (first < second) == ((one, one_random) < (other, other_random))
    assert len(first) == len(second)


def test_a_source_of_tokens_draws_ever_greater_ones_whatever_the_clock_does() -> None:
    readings = [5, 5, 5, 9, 3, -7, 4, 100]
    clock = iter(readings)
    draw = TokenSource(lambda: next(clock))

    drawn = [draw() for _ in readings]

    assert drawn == sorted(set(drawn))


def test_two_sources_never_draw_the_same_token() -> None:
    first, second = TokenSource(lambda: NOW), TokenSource(lambda: NOW)

    assert len({source() for source in (first, second) for _ in range(100)}) == 200


def test_a_clock_before_the_epoch_still_gives_tokens() -> None:
    assert lease.new_token(-5, 1) == lease.new_token(0, 1) != lease.new_token(-5, 2)
