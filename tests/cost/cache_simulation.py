"""A cache, word by word: every access of a convolution's loops through a fully associative LRU of some capacity."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple


class Layer(NamedTuple):
    """A convolution of one image, one group, words of one size; padding on all sides."""

    c_in: int
    c_out: int
    side: int
    kernel: int
    stride: int = 1
    padding: int = 0

    @property
    def out(self) -> int:
        return (self.side + 2 * self.padding - self.kernel) // self.stride + 1


TINY = (
    Layer(2, 4, 6, 3, 1, 1),
    Layer(3, 4, 5, 1),
    Layer(1, 6, 7, 3, 2),
    Layer(4, 2, 4, 2),
    Layer(2, 3, 5, 5, 1, 2),
)
"""A grid of kernels, strides, paddings and widths."""

Word = tuple[str, int, int, int, int]


def accesses(layer: Layer, filters: int, rows: int) -> Iterator[tuple[Word, bool]]:
    """Yield (word, written) of the tiled loops that ``cost.tiling`` describes.

    A tile of ``filters`` x ``rows`` partial sums is kept while one input channel after the other streams by.
    """
    c_in, c_out, side, kernel, stride, padding = layer
    for first, top in product(range(0, c_out, filters), range(0, layer.out, rows)):
        some, lines = range(first, min(first + filters, c_out)), range(top, min(top + rows, layer.out))
        for c, r, s, m in product(range(c_in), range(kernel), range(kernel), some):
            yield ("w", m, c, r, s), False
            for e, f in product(lines, range(layer.out)):
                y, x = e * stride + r - padding, f * stride + s - padding
                if 0 <= y < side and 0 <= x < side:
                    yield ("x", c, y, x, 0), False
                yield ("o", m, e, f, 0), True


def words_moved(layer: Layer, filters: int, rows: int, capacity: int) -> int:
    """Return the words between the cache and memory; a result that was never in memory is not read."""
    cache: OrderedDict[Word, bool] = OrderedDict()
    spilled: set[Word] = set()
    moved = 0
    for word, written in accesses(layer, filters, rows):
        if word in cache:
            cache.move_to_end(word)
            cache[word] = cache[word] or written
            continue
        if not written or word in spilled:
            moved += 1
        cache[word] = written
        if len(cache) > capacity:
            old, dirty = cache.popitem(last=False)
            if dirty:
                moved += 1
                spilled.add(old)
    return moved + sum(cache.values())


def least_words(layer: Layer, capacity: int) -> int:
    """Return the fewest words that any tile of the layer moves through a cache of ``capacity`` words."""
    tiles = product(
        sorted({-(-layer.c_out // k) for k in range(1, layer.c_out + 1)}),
        sorted({-(-layer.out // k) for k in range(1, layer.out + 1)}),
    )
    return min(words_moved(layer, filters, rows, capacity) for filters, rows in tiles)
