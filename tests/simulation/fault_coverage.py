"""In how many histories each role and each kind of fault was hit: without zombies nothing is proven about zombies."""

from collections import Counter
from collections.abc import Iterable, Mapping

from tests.simulation.faults import ROLES, Fault

LEAST_SHARE = 0.10


class Coverage:
    """Counts over histories; `also` must be in a tenth of them, as every fault."""

    def __init__(self, also: Iterable[str] = ()) -> None:
        self.histories = 0
        self._also = tuple(also)
        self._hit: Counter[str] = Counter()
        self._times: Counter[str] = Counter()

    def add(self, counts: Mapping[str, int]) -> None:
        """Take the counts of one history."""
        self.histories += 1
        for name, count in counts.items():
            if count:
                self._hit[name] += 1
                self._times[name] += count
        for role in ROLES:
            self._hit[f"role {role}"] += any(count and name.endswith(f": {role}") for name, count in counts.items())

    def share(self, name: str) -> float:
        """In how many of the histories something happened."""
        return self._hit[name] / max(1, self.histories)

    def gaps(self) -> list[str]:
        """What happened in too few histories: every role, and every kind of fault, must be in a tenth of them."""
        wanted = [*map(str, Fault), *(f"role {role}" for role in ROLES), *self._also]
        return [f"{name} in {self.share(name):.0%} of the histories" for name in wanted if self.share(name) < LEAST_SHARE]

    def table(self) -> str:
        """Everything counted, most frequent first."""
        rows = [f"{'of the histories':>17} {'times':>9}"]
        for name in sorted(self._hit, key=lambda n: (-self._hit[n], n)):
            if self._hit[name]:
                rows.append(f"{self.share(name):>16.1%}  {self._times[name] or '':>9}  {name}")
        return "\n".join(rows)
