"""What answers change about a quota, and what follows from it."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truncus_django.api.results import MonthlyQuota
from truncus_django.quota.figures import (
    CLOCK_TOLERANCE_S,
    DAY_S,
    Figures,
    Told,
    day_ends_at,
    held_back_until,
    in_month,
    is_plausible,
    is_stale,
    low_priority_left,
    month_begins_at,
    month_ends_at,
    month_of,
    reserved_emails,
    runs_out_at,
    updated,
)


def at(day: int, hour: int = 12, month: int = 6, minute: int = 0) -> float:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC).timestamp()


def told(sent: int, limit: int = 1000) -> Told:
    return Told(MonthlyQuota(limit, sent, max(0, limit - sent)))


def after(*answers: tuple[Told, float]) -> Figures:
    known = Figures()
    for answer, now in answers:
        known = updated(known, answer, now=now)
    return known


# Months and days ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "begins", "ends"),
    [
        (at(1, 0), (2026, 6), (2026, 7)),
        (at(30, 23, minute=59), (2026, 6), (2026, 7)),
        (at(31, 23, month=12), (2026, 12), (2027, 1)),
        (datetime(2028, 2, 29, 12, tzinfo=UTC).timestamp(), (2028, 2), (2028, 3)),
    ],
)
def test_a_month_goes_from_midnight_to_midnight_of_utc(moment, begins, ends):
    assert month_of(moment) == date(*begins, 1)
    assert month_begins_at(moment) == datetime(*begins, 1, tzinfo=UTC).timestamp()
    assert month_ends_at(moment) == datetime(*ends, 1, tzinfo=UTC).timestamp()


def test_a_day_ends_at_midnight_of_utc():
    assert day_ends_at(at(30, 23)) == at(1, 0, month=7)


def test_in_a_new_month_only_limit_and_rate_are_known():
    known = after((told(900), at(30, 23)))

    july = in_month(known, now=at(1, 0, month=7))

    assert (july.limit, july.sent, july.remaining, july.told_percent) == (1000, None, None, 0)
    assert july.emails_per_day == known.emails_per_day
    assert july.share is None
    assert runs_out_at(july, now=at(1, 0, month=7)) is None


# What is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "sent", "remaining"),
    [
        (0, 0, 0),
        (-1, 5, -1),
        (10, -1, 5),
        (10, 5, -5),
        (10, 5, 11),
        (10**13, 0, 0),
        (10, 10**13, 0),
    ],
)
def test_absurd_figures_are_left_out(limit, sent, remaining):
    assert not is_plausible(MonthlyQuota(limit, sent, remaining))


def test_more_than_the_plan_may_be_sent():
    assert is_plausible(MonthlyQuota(1000, 1010, 0))
    assert after((Told(MonthlyQuota(1000, 1010, 0)), at(5))).share == 1.0


def test_where_figures_disagree_the_one_counts_that_leaves_less():
    known = after((Told(MonthlyQuota(1000, 100, 50)), at(5)))

    assert (known.used, known.share, known.percent_reached) == (950, 0.95, 95)


def test_an_answer_that_tells_nothing_changes_nothing():
    known = after((told(100), at(5)))
    assert updated(known, Told(), now=at(6)) == known


def test_fewer_emails_within_a_moment_are_of_a_slow_answer():
    known = after((told(101), at(5)), (told(100), at(5) + 2))
    assert known.sent == 101


def test_what_came_before_is_never_told_later():
    known = after((told(101), at(5)), (told(300), at(5) - 2))
    assert known.sent == 101


def test_fewer_emails_are_believed_later_and_say_nothing_about_the_rate():
    before = after((told(500), at(5)))
    known = updated(before, told(100), now=at(6))

    assert known.sent == 100
    assert known.emails_per_day == before.emails_per_day


def test_a_smaller_plan_is_believed_at_once():
    known = after((told(500), at(5)), (told(500, limit=600), at(5) + 1))
    assert (known.limit, known.remaining, known.percent_reached) == (600, 100, 80)


def test_a_refusal_uses_up_the_month_also_where_no_plan_was_told():
    known = after((Told(is_used_up=True), at(5)))

    assert (known.limit, known.remaining, known.share, known.told_percent) == (None, 0, 1.0, 100)
    assert in_month(known, now=at(1, 0, month=7)).remaining is None


def test_a_clock_that_was_set_back_does_not_stop_figures_for_ever():
    known = after((told(500), at(25)), (told(501), at(5)))
    assert known.sent == 501


def test_thresholds_that_were_reached_stay_so_for_the_month():
    known = after((told(960), at(5)), (told(100), at(6)))
    assert known.told_percent == 95

    assert updated(known, told(10), now=at(1, month=7)).told_percent == 0


def test_what_was_told_of_the_last_month_as_it_ended_says_nothing_of_the_new_one():
    """An answer is under way for a while, and no clock is right to the second."""
    ends = month_ends_at(at(30))
    known = after((told(980), ends - 5))
    for late in (told(980), told(1000), Told(is_used_up=True)):
        assert updated(known, late, now=ends + 10) == known
    known = updated(known, told(1), now=ends + 20)
    assert (known.month, known.sent, known.told_percent) == (month_of(ends), 1, 0)
    known = updated(known, told(999), now=ends + 30)  # a burst
    assert (known.sent, known.told_percent) == (999, 95)


def test_a_new_month_in_which_more_is_sent_at_once_is_believed_after_a_few_minutes():
    ends = month_ends_at(at(30))
    known = after((told(10), ends - 5), (told(960), ends + CLOCK_TOLERANCE_S))
    assert (known.month, known.told_percent) == (month_of(ends), 95)


def test_daily_caps_end_with_the_day_and_come_and_go_apart_from_the_quota():
    known = after((told(5), at(5)), (Told(capped_domains=frozenset({"example.com"})), at(5, 13)))

    assert known.capped == {"example.com": at(6, 0)}
    assert known.told_at == at(5)
    assert updated(known, told(6), now=at(6, 1)).capped == {}


@given(
    st.lists(
        st.tuples(
            st.builds(
                Told,
                st.none() | st.builds(MonthlyQuota, *[st.integers(-5, 10**15)] * 3),
                st.booleans(),
                st.frozensets(st.sampled_from(["a.example", "b.example"])),
            ),
            st.floats(0, 400 * DAY_S),
        ),
        max_size=20,
    )
)
def test_whatever_is_told_the_figures_make_sense(answers):
    known = Figures()
    for answer, seconds in answers:
        if answer.quota is not None and not is_plausible(answer.quota):
            answer = replace(answer, quota=None)
        now = at(1, 0) + seconds
        known = updated(known, answer, now=now)
        assert known.emails_per_day >= 0
        assert known.share is None or 0 <= known.share <= 1
        assert known.told_percent in {0, 80, 95, 100}
        end = runs_out_at(known, now=now)
        assert end is None or now <= end < month_ends_at(now)


# The rate, and when it runs out ---------------------------------------------------------------


def test_at_first_the_rate_is_that_of_the_month_so_far():
    known = after((told(450), at(10, 0)))

    assert known.emails_per_day == pytest.approx(50)
    assert runs_out_at(known, now=at(10, 0)) == pytest.approx(at(21, 0))


def test_a_burst_in_the_first_minutes_of_a_month_is_no_rate():
    known = after((told(100), at(1, 0, minute=5)))
    assert known.emails_per_day == pytest.approx(100)


def test_a_steady_rate_is_found_whatever_the_time_between_answers():
    known = after(*((told(count), at(1, 0) + count * 360) for count in range(240, 900)))
    assert known.emails_per_day == pytest.approx(240)

    seldom = after(*((told(day * 100), at(day + 1, 0)) for day in range(1, 9)))
    assert seldom.emails_per_day == pytest.approx(100)


def test_the_present_counts_for_more_than_the_past():
    slow = after(*((told(day * 10), at(day + 1, 0)) for day in range(1, 5)))
    fast = updated(slow, told(240), now=at(7, 0))

    assert 60 < fast.emails_per_day < 100


def test_a_new_month_goes_on_with_the_rate():
    june = after(*((told(day * 100, limit=10_000), at(day + 1, 0)) for day in range(1, 30)))
    july = updated(june, told(50, limit=10_000), now=at(1, 12, month=7))

    assert july.emails_per_day == pytest.approx(100)


def test_what_lasts_for_the_month_does_not_run_out():
    known = after((told(10), at(10, 0)))
    assert runs_out_at(known, now=at(10, 0)) is None


@pytest.mark.parametrize("sent", [0, 1000])
def test_without_a_rate_or_without_emails_left_nothing_is_foretold(sent):
    assert runs_out_at(after((told(sent), at(10))), now=at(10)) is None


def test_stale_figures_foretell_nothing():
    known = after((told(900), at(10)))

    assert not is_stale(known, now=at(11))
    assert is_stale(known, now=at(11) + 1)
    assert runs_out_at(known, now=at(11) + 1) is None


def test_what_should_have_run_out_by_now_runs_out_now():
    known = after((told(990), at(10)))
    assert runs_out_at(known, now=at(11)) == at(11)


# The reserve ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reserve", "limit", "kept"),
    [(0.0, 1000, 0), (50.0, 1000, 50), (0.05, 999, 50), (0.5, None, 0)],
)
def test_a_reserve_is_a_number_or_a_share(reserve, limit, kept):
    assert reserved_emails(reserve, limit) == kept


@pytest.mark.parametrize(("sent", "left"), [(0, 900), (899, 1), (900, 0), (950, 0), (1000, 0)])
def test_low_priority_ends_where_the_reserve_begins(sent, left):
    assert low_priority_left(after((told(sent), at(5))), 100.0, now=at(5)) == left


def test_any_number_may_go_without_a_reserve_and_where_nothing_is_known():
    known = after((told(999), at(5)))

    assert low_priority_left(known, 0.0, now=at(5)) is None
    assert low_priority_left(Figures(), 100.0, now=at(5)) is None
    assert low_priority_left(known, 100.0, now=at(5, month=7)) is None


def test_after_a_day_one_email_asks():
    known = after((told(950), at(5)))

    assert held_back_until(known, now=at(5)) == at(6)
    assert low_priority_left(known, 100.0, now=at(6)) == 0
    assert low_priority_left(known, 100.0, now=at(6) + 1) == 1
    assert held_back_until(after((told(950), at(30))), now=at(30)) == at(1, 0, month=7)
