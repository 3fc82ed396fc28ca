import pytest
import trio
import trio.testing

from erlang_interop.runtime.mailbox import CHECKPOINT_EVERY, Mailbox


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
