"""Turns: in the order of asking."""

import threading
import time

from myservice.db import turn
from myservice.tests import base


class TestTurns(base.TestCase):
    def test_they_come_in_the_order_of_asking(self) -> None:
        turns, order = turn.Turns(), []
        self.assertTrue(turns.take(0))

        def wait(number: int) -> None:
            turns.take(10)
            order.append(number)
            turns.end()

        threads = []
        for number in range(8):
            thread = threading.Thread(target=wait, args=(number,))
            thread.start()
            threads.append(thread)
            time.sleep(0.02)
        turns.end()
        for thread in threads:
            thread.join()
        self.assertEqual(list(range(8)), order)
        self.assertTrue(turns.take(0))

    def test_who_has_waited_for_too_long_gives_up_his_place(self) -> None:
        turns = turn.Turns()
        turns.take(0)
        self.assertFalse(turns.take(0.01))
        turns.end()
        self.assertTrue(turns.take(0))


class TestCollisions(base.DatabaseTestCase):
    def most_at_once(self, collisions: turn.Collisions) -> int:
        inside, most = 0, 0
        lock = threading.Lock()

        def attempt() -> None:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1

        self.in_threads(8, lambda _: collisions.avoid(attempt))
        return most

    def test_attempts_go_in_single_file_for_a_while(self) -> None:
        collisions = turn.Collisions()
        self.assertTrue(self.most_at_once(collisions) > 1)
        collisions.note(10)
        self.assertEqual(1, self.most_at_once(collisions))
        collisions = turn.Collisions()
        collisions.note(0)
        self.assertTrue(self.most_at_once(collisions) > 1)
