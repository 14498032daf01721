"""The settings by which the local AWS behaves as AWS does where moto is kinder, and their random decisions."""

import random
import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class AwsBehavior:
    """Differences between AWS and moto. All are off by default, and then every answer is moto's.

    `hold_seconds`: the duration of a DynamoDB transaction, during which its items are in conflict with other writes.
    `lag_seconds`: the longest lag of a read that is not strongly consistent. `honors_tokens`: a repeated transaction
    with the same `ClientRequestToken` changes nothing. `throttled`: the fraction of DynamoDB's and S3's requests that
    are throttled. `repeated_events`: the fraction of a rule's events that are delivered twice. `late_seconds`: the
    longest delay of a message, so that messages arrive in another order. `lapsed_receipts`: the fraction of received
    batches that stay visible in their queue. `repeated_batches`: the fraction of a stream's batches that are processed
    again. The same `seed` takes the same decisions if the requests arrive in the same order.
    """

    hold_seconds: float = 0.0
    lag_seconds: float = 0.0
    honors_tokens: bool = False
    throttled: float = 0.0
    repeated_events: float = 0.0
    late_seconds: float = 0.0
    lapsed_receipts: float = 0.0
    repeated_batches: float = 0.0
    seed: int = 0


AS_MOTO = AwsBehavior()
"""moto's own behavior."""


class Chance:
    """Random decisions by a seed, for several threads, and the number of times that each behavior had an effect."""

    def __init__(self, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def happens(self, fraction: float, effect: str) -> bool:
        """True in this fraction of the calls. A fraction of 0 leaves the other decisions as they are."""
        if not fraction:
            return False
        with self._lock:
            happens = self._random.random() < fraction
            self.counts[effect] += happens
            return happens

    def count(self, effect: str) -> None:
        """Count an effect that needs no decision."""
        with self._lock:
            self.counts[effect] += 1

    def below(self, limit: float) -> float:
        """A number from 0 to `limit`."""
        with self._lock:
            return self._random.uniform(0, limit)
