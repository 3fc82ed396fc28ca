import pytest
import trio
import trio.testing

from erlang_interop.runtime.mailbox import CHECKPOINT_EVERY, UNCHANGED, Mailbox, Marked


async def test_messages_come_out_in_the_order_they_went_in() -> None:
    mailbox = Mailbox()
    for number in range(10):
        mailbox.put(number)
    assert [await mailbox.get() for _ in range(10)] == list(range(10))


async def test_a_selective_receive_leaves_the_others_in_order() -> None:
    mailbox = Mailbox()
    for number in range(6):
        mailbox.put(number)
    assert await mailbox.get(lambda message: message == 3) == 3
    assert await mailbox.get(lambda message: message % 2 == 1) == 1
    assert [await mailbox.get() for _ in range(4)] == [0, 2, 4, 5]


async def test_a_selective_receive_waits_for_its_message_and_keeps_what_came_before() -> None:
    mailbox = Mailbox()
    mailbox.put("early")
    async with trio.open_nursery() as nursery:

        async def receiver() -> None:
            assert await mailbox.get(lambda message: message == "wanted") == "wanted"

        nursery.start_soon(receiver)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.put("other")
        await trio.testing.wait_all_tasks_blocked()
        mailbox.put("wanted")
        mailbox.put("late")
    assert [mailbox.get_nowait() for _ in range(3)] == ["early", "other", "late"]


async def test_a_match_that_raises_loses_nothing() -> None:
    mailbox = Mailbox()
    for number in (1, 0, 2):
        mailbox.put(number)
    with pytest.raises(ZeroDivisionError):
        await mailbox.get(lambda message: 1 / message > 5)
    assert [mailbox.get_nowait() for _ in range(3)] == [1, 0, 2]


async def test_a_selective_receive_looks_at_nothing_twice() -> None:
    mailbox, looked_at = Mailbox(), 0

    def wanted(message: object) -> bool:
        nonlocal looked_at
        looked_at += 1
        return message == "wanted"

    for number in range(1000):
        mailbox.put(number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.get, wanted)
        for message in [*range(100), "wanted", "late"]:
            await trio.testing.wait_all_tasks_blocked()
            mailbox.put(message)
    assert looked_at == 1000 + 100 + 1
    assert [mailbox.get_nowait() for _ in range(len(mailbox))] == [*range(1000), *range(100), "late"]


async def test_a_selective_receive_may_put_what_it_looks_at_next() -> None:
    mailbox = Mailbox()
    for number in range(3):
        mailbox.put(number)

    def wanted(message: object) -> bool:
        if message == 1:
            mailbox.put("wanted")
        return message == "wanted"

    assert await mailbox.get(wanted) == "wanted"
    assert [mailbox.get_nowait() for _ in range(3)] == [0, 1, 2]


async def test_what_is_set_aside_is_in_front_again_afterwards() -> None:
    mailbox = Mailbox()
    mailbox.put(1)
    older = mailbox.set_aside()
    mailbox.put(2)
    mailbox.put(3)
    assert await mailbox.get(lambda message: message in (1, 2)) == 2
    mailbox.put_back(older)
    assert [mailbox.get_nowait() for _ in range(2)] == [1, 3]


@pytest.mark.parametrize("marked", [False, True])
async def test_one_message_is_discarded_without_a_look_at_those_behind_it(marked: bool) -> None:
    mailbox, looked_at = Mailbox(), []
    for number in range(6):
        if marked:
            mailbox.put_marked(Marked(number, UNCHANGED, number > 3))
        else:
            mailbox.put(number)

    def match(message: object) -> bool:
        looked_at.append(message)
        return message in (2, 3)

    assert mailbox.discard_first(match) is True
    assert looked_at == ([4, 5, 0, 1, 2] if marked else [0, 1, 2])
    assert mailbox.discard_first(lambda message: message == 4) is True
    assert mailbox.discard_first(lambda message: message == 7) is False
    assert [mailbox.get_nowait() for _ in range(4)] == ([5, 0, 1, 3] if marked else [0, 1, 3, 5])
    assert not mailbox.marked


async def test_a_cancelled_receive_loses_nothing() -> None:
    mailbox = Mailbox()
    for number in range(CHECKPOINT_EVERY * 2):
        mailbox.put(number)
    taken = []
    with trio.CancelScope() as scope:
        scope.cancel()
        while True:
            taken.append(await mailbox.get())
    assert scope.cancelled_caught
    assert taken == list(range(len(taken)))
    assert mailbox.get_nowait() == len(taken)


async def test_a_full_mailbox_does_not_keep_others_from_running() -> None:
    mailbox = Mailbox()
    for number in range(CHECKPOINT_EVERY * 3):
        mailbox.put(number)
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(CHECKPOINT_EVERY * 3):
            await mailbox.get()
        nursery.cancel_scope.cancel()
    assert passes >= 2


async def test_one_wake_up_for_a_batch() -> None:
    mailbox = Mailbox()
    seen: list[int] = []

    async def receiver() -> None:
        while len(seen) < 3:
            seen.append(await mailbox.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            mailbox.put(number)  # the second and third find no waiter: rescheduling twice would crash the loop
    assert seen == [0, 1, 2]


async def test_two_receivers_are_an_error_that_says_so() -> None:
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.get)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="two tasks receive from one mailbox"):
            await mailbox.get()
        nursery.cancel_scope.cancel()


async def test_get_nowait_on_an_empty_mailbox_would_block() -> None:
    with pytest.raises(trio.WouldBlock):
        Mailbox().get_nowait()


async def test_discard_says_how_many_it_removed() -> None:
    mailbox = Mailbox()
    for number in range(5):
        mailbox.put(number)
    assert mailbox.discard(lambda message: message > 2) == 2
    assert len(mailbox) == 3


def first(message: object) -> Marked:
    return Marked(message, None, True)


def put_mixed(mailbox: Mailbox) -> None:
    for message in (1, first(2), 3, Marked(4, None, False), first(5)):
        if isinstance(message, Marked):
            mailbox.put_marked(message)
        else:
            mailbox.put(message)


async def test_priority_messages_come_first_and_in_order() -> None:
    mailbox = Mailbox()
    put_mixed(mailbox)
    assert len(mailbox) == 5
    assert [mailbox.get_nowait() for _ in range(2)] == [2, 5]
    assert mailbox.marked, "there is one that came with a token"
    assert [await mailbox.get() for _ in range(3)] == [1, 3, 4]
    assert not mailbox.marked
    mailbox.put_marked(first(6))
    assert await mailbox.get() == 6
    with pytest.raises(trio.WouldBlock):
        mailbox.get_nowait()
    mailbox.put(7)
    assert mailbox.get_nowait() == 7


async def test_a_selective_receive_looks_at_priority_messages_first() -> None:
    mailbox = Mailbox()
    put_mixed(mailbox)
    seen = []

    def wanted(message: object) -> bool:
        seen.append(message)
        return message == 4

    assert await mailbox.get(wanted) == 4
    assert seen == [2, 5, 1, 3, 4]
    assert await mailbox.get(lambda message: message == 5) == 5
    assert [mailbox.get_nowait() for _ in range(3)] == [2, 1, 3]


async def test_a_priority_message_wakes_a_selective_receive_and_goes_before_what_that_passed_over() -> None:
    mailbox = Mailbox()
    mailbox.put(1)
    async with trio.open_nursery() as nursery:

        async def receiver() -> None:
            assert await mailbox.get(lambda message: message == 3) == 3

        nursery.start_soon(receiver)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.put_marked(first(2))
        await trio.testing.wait_all_tasks_blocked()
        mailbox.put_marked(first(3))
    assert [mailbox.get_nowait() for _ in range(2)] == [2, 1]


async def test_a_match_that_raises_loses_no_priority_message() -> None:
    mailbox = Mailbox()
    put_mixed(mailbox)
    with pytest.raises(ZeroDivisionError):
        await mailbox.get(lambda message: 1 // (message - 3) == 7)
    assert [mailbox.get_nowait() for _ in range(5)] == [2, 5, 1, 3, 4]


async def test_discarding_from_among_priority_messages() -> None:
    mailbox = Mailbox()
    put_mixed(mailbox)
    assert mailbox.discard(lambda message: message in (4, 5)) == 2
    assert mailbox.discard(lambda message: message == 9) == 0
    assert [mailbox.get_nowait() for _ in range(3)] == [2, 1, 3]
    assert not mailbox.marked


async def test_the_token_of_each_message_is_handed_out_while_there_is_one() -> None:
    tokens: list[object] = []

    def received(token: object) -> bool:
        tokens.append(token)
        return token is not None

    mailbox = Mailbox(received)
    mailbox.put(0)
    assert mailbox.get_nowait() == 0
    assert tokens == [], "nobody is asked about ordinary messages"
    for message in (Marked(1, "token", False), Marked(2, UNCHANGED, False)):
        mailbox.put_marked(message)
    mailbox.put(3)
    mailbox.put(4)
    assert [mailbox.get_nowait() for _ in range(4)] == [1, 2, 3, 4]
    assert tokens == ["token", UNCHANGED, None]
