"""Reference: argon2id and nothing else.

argon2_alone.py TIME_COST MEMORY_KIB

Verifies for as many seconds as each line of stdin says, and answers how often, and how many seconds that took
by the clock and of the processor. It has a thread for each core at hand, as the server has: two on one core
would do less.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import argon2

PASSWORD = "correct horse battery staple"


def main(time_cost: int, memory_kib: int) -> None:
    hasher = argon2.PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=1)
    known = hasher.hash(PASSWORD)
    for line in sys.stdin:
        done: list[bool] = []
        began, spent_s = time.perf_counter(), time.process_time()
        until = began + float(line)

        def verify(done: list[bool] = done, until: float = until) -> None:
            while time.perf_counter() < until:
                done.append(hasher.verify(known, PASSWORD))

        threads = [threading.Thread(target=verify) for _ in os.sched_getaffinity(0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(done), time.perf_counter() - began, time.process_time() - spent_s, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
