import trio
import trio.testing

from erlang_interop.runtime.timers import SWEEP_AT, Timers


async def test_timers_fire_in_order_of_their_deadlines(autojump_clock: trio.testing.MockClock) -> None:
    timers = Timers()
    fired: list[tuple[str, float]] = []
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await trio.testing.wait_all_tasks_blocked()
        for name, delay in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("a2", 1.0)):
            timers.call_later(delay, lambda name=name: fired.append((name, trio.current_time() - start)))  # type: ignore[misc]
        await trio.sleep(4)
        nursery.cancel_scope.cancel()
    assert [name for name, _ in fired] == ["a", "a2", "b", "c"]
    assert [round(at) for _, at in fired] == [1, 1, 2, 3]


async def test_an_earlier_timer_set_while_the_task_sleeps_is_on_time(autojump_clock: trio.testing.MockClock) -> None:
    timers = Timers()
    fired: list[float] = []
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        timers.call_later(100.0, lambda: fired.append(trio.current_time() - start))
        await trio.sleep(1)
        timers.call_later(1.0, lambda: fired.append(trio.current_time() - start))
        await trio.sleep(2)
        assert [round(at) for at in fired] == [2]
        nursery.cancel_scope.cancel()


async def test_a_cancelled_timer_never_fires(autojump_clock: trio.testing.MockClock) -> None:
    timers = Timers()
    fired: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        taken_back = timers.call_later(1.0, lambda: fired.append("no"))
        kept = timers.call_later(1.0, lambda: fired.append("yes"))
        assert taken_back.cancel()
        assert not taken_back.cancel()
        await trio.sleep(2)
        assert fired == ["yes"]
        assert not kept.cancel()
        nursery.cancel_scope.cancel()


async def test_a_timer_that_sets_itself_again_at_once_does_not_hold_the_loop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    timers = Timers()
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        timers.call_later(0, again)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        timers.call_later(0, again)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert 0 < count <= 21


async def test_timers_taken_back_are_swept_out(autojump_clock: trio.testing.MockClock) -> None:
    timers = Timers()
    fired: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        for number in range(3):
            timers.call_later(2.0, lambda number=number: fired.append(number))  # type: ignore[misc]
        for _ in range(10 * SWEEP_AT):
            timers.call_later(1.0, lambda: fired.append(-1)).cancel()
            assert len(timers) <= 2 * SWEEP_AT
        await trio.sleep(1.5)
        assert len(timers) == 3
        await trio.sleep(1)
        assert fired == [0, 1, 2]
        assert len(timers) == 0
        nursery.cancel_scope.cancel()
