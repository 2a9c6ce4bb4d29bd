"""Which messages share a request."""

import pytest
from django.core.mail import EmailMessage

from tests.sending.test_direct import NOW, outgoing
from truncus_django.api.capabilities import Capabilities, WireFormat
from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import MessageError
from truncus_django.sending.batching import make_batches
from truncus_django.sending.outgoing import AmbiguousSend, Batch, Original, OutgoingMessage
from truncus_django.sending.requests import MAX_BATCH_BYTES


def many(count, **options):
    return [outgoing(str(number), **options) for number in range(count)]


@pytest.mark.parametrize(("count", "sizes"), [
    (0, []), (1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50]),
])  # fmt: skip
def test_messages_share_requests_of_up_to_100(count, sizes):
    assert [len(batch.messages) for batch in make_batches(many(count), now=NOW)] == sizes


def test_each_request_has_a_key_of_its_own():
    assert len({batch.key for batch in make_batches(many(250), now=NOW)}) == 3


def test_requests_are_kept_within_a_bound_of_bytes():
    large = many(3, size=MAX_BATCH_BYTES // 2)
    assert [len(batch.messages) for batch in make_batches(large, now=NOW)] == [2, 1]


def test_one_message_larger_than_the_bound_still_goes():
    assert len(list(make_batches([outgoing(size=MAX_BATCH_BYTES * 2)], now=NOW))) == 1


def test_sandbox_and_real_messages_are_never_in_one_request():
    mixed = [outgoing(str(number), sandbox=number % 2 == 1) for number in range(4)]
    planned = make_batches(mixed, now=NOW)
    assert [[one.position for one in batch.messages] for batch in planned] == [[0, 2], [1, 3]]


def test_those_of_a_message_with_merge_data_do_not_wait_for_other_messages():
    originals = [Original(EmailMessage()) for _ in range(3)]
    taken = []

    def merged():
        for number in range(9):
            taken.append(number)
            yield outgoing(str(number))._replace(original=originals[number // 3])
        yield outgoing("9")

    batches = make_batches(merged(), now=NOW)
    first = next(batches)
    assert taken == [0, 1, 2, 3]
    found = [[one.position for one in batch.messages] for batch in (first, *batches)]
    assert found == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_a_key_of_its_own_goes_alone():
    planned = list(make_batches([outgoing("0"), outgoing("1", key="mine"), outgoing("2")], now=NOW))
    assert {batch.key: len(batch.messages) for batch in planned}["mine"] == 1
    assert sorted(len(batch.messages) for batch in planned) == [1, 2]


def test_what_cannot_be_sent_comes_together_before_the_next_request():
    broken = [OutgoingMessage(place, EmailMessage(), error=MessageError("No")) for place in (0, 2)]
    mixed = [broken[0], outgoing("1"), broken[1], outgoing("3"), *broken]
    batches = list(make_batches(mixed, now=NOW))
    assert [[one.position for one in batch.messages] for batch in batches] == [[0, 2, 0, 2], [1, 3]]
    assert [bool(batch.key) for batch in batches] == [False, True]


def test_what_cannot_be_sent_comes_also_where_nothing_else_does():
    broken = OutgoingMessage(0, EmailMessage(), error=MessageError("No"))
    assert list(make_batches([broken], now=NOW)) == [Batch("", (broken,))]


def test_what_cannot_be_sent_comes_before_a_repeated_request_and_by_the_hundred():
    broken = [OutgoingMessage(0, EmailMessage(), error=MessageError("No")) for _ in range(101)]
    note = AmbiguousSend("k", "account", EmailFields(), is_sandbox=False, size=1,
                         wire_format=WireFormat(Capabilities(), is_pinned=False), fingerprint="",
                         index=0, batch_size=1, since=NOW, is_ambiguous=True)  # fmt: skip
    repeated = outgoing("1")._replace(ambiguous_send=note)
    batches = list(make_batches([*broken, repeated], now=NOW))
    assert [(batch.key, len(batch.messages)) for batch in batches] == [("", 100), ("", 1), ("k", 1)]
