"""A set of item indices, kept as ranges: what of a bundle nobody holds."""

from __future__ import annotations

from bisect import bisect_left


class Ranges:
    """Half-open ranges lo..hi, sorted, apart from each other: neighbours are joined, so what comes back piecewise is whole again."""

    __slots__ = ("_his", "_los", "items")

    def __init__(self) -> None:
        self._los: list[int] = []
        self._his: list[int] = []
        self.items = 0

    def __iter__(self) -> zip[tuple[int, int]]:
        return zip(self._los, self._his, strict=True)

    def add(self, lo: int, hi: int) -> None:
        """Put in lo..hi, of which nothing is in."""
        los, his = self._los, self._his
        self.items += hi - lo
        if not his or lo > his[-1]:
            los.append(lo)
            his.append(hi)
        elif lo == his[-1]:
            his[-1] = hi
        else:
            self._insert(lo, hi)

    def _insert(self, lo: int, hi: int) -> None:
        los, his = self._los, self._his
        i = bisect_left(los, lo)
        assert hi <= los[i] if i < len(los) else True, "an index was given back twice"
        assert his[i - 1] <= lo if i else True, "an index was given back twice"
        if i < len(los) and los[i] == hi:
            hi = his[i]
            del los[i], his[i]
        if i and his[i - 1] == lo:
            his[i - 1] = hi
        else:
            los.insert(i, lo)
            his.insert(i, hi)

    def take(self, most: int) -> tuple[int, int]:
        """Remove the first range, or its first `most` items, and return it. There must be one."""
        lo, hi = self._los[0], self._his[0]
        if hi - lo > most:
            hi = self._los[0] = lo + most
        else:
            del self._los[0], self._his[0]
        self.items -= hi - lo
        return lo, hi

    def clear(self) -> None:
        """Nothing is in."""
        self._los.clear()
        self._his.clear()
        self.items = 0
