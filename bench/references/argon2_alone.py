"""Reference: argon2id and nothing else.

argon2_alone.py TIME_COST MEMORY_KIB SECONDS    # verifications a second, with a thread for each core
"""

from __future__ import annotations

import os
import sys
import threading
import time

import argon2

PASSWORD = "correct horse battery staple"


def main(time_cost: int, memory_kib: int, seconds: float) -> float:
    hasher = argon2.PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=1)
    known = hasher.hash(PASSWORD)
    done: list[bool] = []
    began = time.perf_counter()

    def verify() -> None:
        while time.perf_counter() - began < seconds:
            done.append(hasher.verify(known, PASSWORD))

    threads = [threading.Thread(target=verify) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done) / (time.perf_counter() - began)


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
