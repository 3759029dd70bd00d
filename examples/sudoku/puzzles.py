"""6x6 Sudoku puzzles: all grids and their symmetries, a batched solver, unique puzzles, and augmentation.

Boxes are 2 rows x 3 columns; tokens are 0 for a blank and 1..6, row by row, 36 a puzzle. Rows swap within their band
and columns within their stack, bands and stacks swap among themselves, digits are renamed: 3,456 x 720 symmetries
(no transposition, as boxes are not square). They sort the 28,200,960 grids into 49 classes. Train and test puzzles come
from different classes, so that no symmetry takes a test puzzle, nor its solution, to one that was trained on.

    python examples/sudoku/puzzles.py        writes examples/sudoku/data/{train,test}.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CELLS = 36
MIN_GIVENS, MAX_GIVENS = 8, 12
TRAIN, TEST = 100_000, 2_000  # puzzles, unless told otherwise
TEST_SHARE = 0.2  # of all grids, roughly: classes are held out whole
SPLIT_SEED = 6
CHUNK = 2048  # boards that the solver holds together; their candidates stay in the cache

_CELL = np.arange(CELLS)
_UNIT_OF = np.stack([_CELL // 6, 6 + _CELL % 6, 12 + _CELL // 12 * 2 + _CELL % 6 // 3])  # row, column, box of a cell
UNITS = np.stack([np.flatnonzero((u == _UNIT_OF).any(axis=0)) for u in range(18)])  # [18, 6] cells
_COUNT = np.array([bin(mask).count("1") for mask in range(64)], np.uint8)
_MASK = np.array([63, 1, 2, 4, 8, 16, 32], np.uint8)  # candidates of a token, bit d - 1 for digit d
_DIGIT = np.zeros(64, np.int32)
_DIGIT[_MASK[1:]] = np.arange(1, 7)


@cache
def position_symmetries() -> Array:
    """Return the 3,456 permutations of cells that keep rows, columns and boxes, ``[3456, 36]``."""
    bands = [np.array(p) for p in permutations(range(3))]
    swaps = [np.array(p) for p in product(*[[(0, 1), (1, 0)]] * 3)]
    rows = [(2 * band[:, None] + swap[band]).reshape(6) for band in bands for swap in swaps]
    inner = list(permutations(range(3)))
    stacks = [
        np.array([left, right]) + 3 * np.array([[a], [1 - a]]) for a in (0, 1) for left in inner for right in inner
    ]
    table = [6 * row[:, None] + stack.reshape(1, 6) for row in rows for stack in stacks]
    return np.stack(table).reshape(-1, CELLS)


@cache
def all_grids() -> tuple[Array, Array]:
    """Return the 39,168 grids whose first row is 1..6, ``[39168, 36]``, and the class 0..48 of each.

    With digits renamed they are all 28,200,960 grids; classes are orbits under the symmetries.
    """
    boards = np.tile(_MASK[0], (CELLS, 1))
    boards[:6, 0] = _MASK[1:]
    grids = _DIGIT[np.concatenate([board for board, _ in _search(boards, np.zeros(1, np.intp))], axis=1).T]
    order = np.lexsort(grids.T[::-1])
    grids = grids[order]
    keys = _keys(grids)
    classes = np.full(len(grids), -1)
    for number in range(len(grids)):
        if (left := np.flatnonzero(classes < 0)).size == 0:
            break
        orbit = _renamed(grids[left[0]][position_symmetries()])
        classes[np.searchsorted(keys, np.unique(_keys(orbit)))] = number
    return grids, classes


@cache
def split_classes() -> tuple[Array, Array]:
    """Return the classes to train on and those to test on, which hold about ``TEST_SHARE`` of all grids.

    The split is the same for every seed of puzzles, so that a test puzzle is unseen whatever was trained on.
    """
    _, classes = all_grids()
    sizes = np.bincount(classes)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(sizes))
    held = int(np.searchsorted(np.cumsum(sizes[order]), TEST_SHARE * len(classes))) + 1
    return np.sort(order[held:]), np.sort(order[:held])


def count_solutions(puzzles: Array, limit: int = 2) -> Array:
    """Count the solutions of ``puzzles [N, 36]``, up to ``limit`` each."""
    counts = np.zeros(len(puzzles), np.int64)
    for start in range(0, len(puzzles), CHUNK):
        boards = _MASK[puzzles[start : start + CHUNK]].T
        part = counts[start : start + CHUNK]
        for _, origin in _search(boards, np.arange(boards.shape[1]), part, limit):
            np.add.at(part, origin, 1)
    return np.minimum(counts, limit)


def solve(puzzles: Array) -> Array:
    """Return a solution of each of ``puzzles [N, 36]``; zeros where there is none."""
    answers = np.zeros_like(puzzles)
    found = np.zeros(len(puzzles), np.int64)
    for boards, origin in _search(_MASK[puzzles].T, np.arange(len(puzzles)), found, 1):
        answers[origin] = _DIGIT[boards.T]
        found[origin] = 1
    return answers


def dig(grids: Array, rng: np.random.Generator) -> Array:
    """Blank cells of ``grids [N, 36]`` in random order, keeping each solution unique.

    Each is dug towards a number of givens drawn from 8..12; one that cannot be dug that far keeps more.
    """
    puzzles = grids.copy()
    goal = rng.integers(MIN_GIVENS, MAX_GIVENS + 1, len(grids))
    for cell in rng.permuted(np.tile(_CELL, (len(grids), 1)), axis=1).T:
        open_ = np.flatnonzero((puzzles > 0).sum(axis=1) > goal)
        trial = puzzles[open_]
        trial[np.arange(len(open_)), cell[open_]] = 0
        unique = count_solutions(trial) == 1
        puzzles[open_[unique]] = trial[unique]
    return puzzles


def make_puzzles(count: int, classes: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw ``count`` different puzzles of 8 to 12 givens with grids of ``classes``.

    Returns
    -------
    x, target
        Puzzles and their only solutions, ``[count, 36]`` int32.
    """
    grids, class_of = all_grids()
    pool = grids[np.isin(class_of, classes)]
    x = np.zeros((0, CELLS), np.int32)
    target = x
    while len(x) < count:
        draw = pool[rng.integers(len(pool), size=count - len(x) + 64)]
        names = rng.permuted(np.tile(np.arange(1, 7, dtype=np.int32), (len(draw), 1)), axis=1)
        draw = np.take_along_axis(names, draw - 1, axis=1)
        puzzles = dig(draw, rng)
        keep = (puzzles > 0).sum(axis=1) <= MAX_GIVENS
        x, target = np.concatenate([x, puzzles[keep]]), np.concatenate([target, draw[keep]])
        first = np.sort(np.unique(x, axis=0, return_index=True)[1])
        x, target = x[first], target[first]
    return x[:count], target[:count]


def make_split(train: int, test: int, seed: int) -> dict[str, tuple[Array, Array]]:
    """Draw ``train`` and ``test`` puzzles from classes of grids that no symmetry connects."""
    train_classes, test_classes = split_classes()
    train_rng, test_rng = np.random.default_rng(seed).spawn(2)
    return {
        "train": make_puzzles(train, train_classes, train_rng),
        "test": make_puzzles(test, test_classes, test_rng),
    }


def write_split(folder: Path, train: int = TRAIN, test: int = TEST, seed: int = 0) -> None:
    """Write ``train.npz`` and ``test.npz`` with arrays ``x`` and ``target``, as the trainer reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (x, target) in make_split(train, test, seed).items():
        np.savez_compressed(folder / f"{name}.npz", x=x, target=target)


def stored_split(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Return the paths of ``train.npz`` and ``test.npz`` in ``folder``; written first where they are not there."""
    paths = {name: folder / f"{name}.npz" for name in ("train", "test")}
    if not all(path.is_file() for path in paths.values()):
        write_split(folder, seed=seed)
    return paths


def solved_by_step(refiner: Any, x: Array, target: Array, steps: int) -> Array:
    """Return whether ``refiner`` has solved each puzzle of ``x [N, 36]`` exactly after each step, ``[N, steps]``."""
    answers = (refiner.refine(puzzle, steps=steps, trajectory=True).trajectory for puzzle in x)
    return np.stack([(answer == right).all(axis=1) for answer, right in zip(answers, target, strict=True)])


def count_givens(x: Array) -> dict[int, int]:
    """Return how many of the puzzles ``x`` have how many givens."""
    numbers, counts = np.unique((x > 0).sum(axis=1), return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def augment(batch: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Apply a random symmetry to each puzzle of a batch and the same one to its target."""
    x = batch["x"]
    cells = position_symmetries()[rng.integers(len(position_symmetries()), size=len(x))]
    names = np.zeros((len(x), 7), x.dtype)  # a blank stays 0
    names[:, 1:] = rng.permuted(np.tile(np.arange(1, 7, dtype=x.dtype), (len(x), 1)), axis=1)
    moved = {key: np.take_along_axis(batch[key], cells, axis=1) for key in ("x", "target")}
    return {**batch, **{key: np.take_along_axis(names, values, axis=1) for key, values in moved.items()}}


def _keys(grids: Array) -> Array:
    """Encode grids whose first row is 1..6 as ordered numbers; the last row and column follow from the others."""
    cells = grids.reshape(-1, 6, 6)[:, 1:5, :5].reshape(-1, 20).astype(np.int64)
    return cells @ 7 ** np.arange(19, -1, -1, dtype=np.int64)


def _renamed(grids: Array) -> Array:
    """Rename digits so that the first row is 1..6."""
    names = np.argsort(grids[:, :6], axis=1) + 1
    return np.take_along_axis(names, grids - 1, axis=1)


def _search(boards: Array, origin: Array, found: Array | None = None, limit: int = 1) -> Iterator[tuple[Array, Array]]:
    """Yield solved boards and the puzzles they belong to; boards hold candidate masks, ``[36, n]`` uint8.

    Propagates all boards together, then splits those that are open on a cell with the fewest candidates, depth first.
    Puzzles with ``found[origin] >= limit`` are dropped; the caller counts.
    """
    stack = [(boards, origin)]
    while stack:
        boards, origin = stack.pop()
        if found is not None:
            wanted = found[origin] < limit
            boards, origin = boards[:, wanted], origin[wanted]
        if boards.shape[1] > CHUNK:
            stack += [(boards[:, CHUNK:], origin[CHUNK:])]
            boards, origin = boards[:, :CHUNK], origin[:CHUNK]
        boards, origin = _propagate(boards, origin)
        if boards.shape[1] == 0:
            continue
        width = _COUNT[boards]
        solved = (width == 1).all(axis=0)
        yield boards[:, solved], origin[solved]
        boards, origin, width = boards[:, ~solved], origin[~solved], width[:, ~solved]
        if boards.shape[1]:
            cell = np.where(width == 1, 9, width).argmin(axis=0), np.arange(boards.shape[1])
            guess, rest = boards.copy(), boards.copy()
            guess[cell] = boards[cell] & -boards[cell]  # the lowest candidate
            rest[cell] = boards[cell] & (boards[cell] - 1)  # the others
            stack.append((np.concatenate([rest, guess], axis=1), np.concatenate([origin, origin])))


def _propagate(boards: Array, origin: Array) -> tuple[Array, Array]:
    """Apply naked and hidden singles until nothing changes; drop boards with a contradiction."""
    boards = boards.copy()
    while boards.shape[1]:
        before = boards.copy()
        fixed = np.where(_COUNT[boards] == 1, boards, 0).astype(np.uint8)
        seen, twice = _once_and_twice(fixed)
        bad = (twice != 0).any(axis=0)
        blocked = seen[_UNIT_OF[0]] | seen[_UNIT_OF[1]] | seen[_UNIT_OF[2]]
        boards = np.where(fixed > 0, boards, boards & ~blocked)
        seen, twice = _once_and_twice(boards)
        bad |= (seen != 63).any(axis=0) | (boards == 0).any(axis=0)
        once = seen & ~twice
        only = boards & (once[_UNIT_OF[0]] | once[_UNIT_OF[1]] | once[_UNIT_OF[2]])
        bad |= (_COUNT[only] > 1).any(axis=0)
        boards = np.where(only > 0, only, boards)
        if not bad.any() and np.array_equal(boards, before):
            break
        boards, origin = boards[:, ~bad], origin[~bad]
    return boards, origin


def _once_and_twice(masks: Array) -> tuple[Array, Array]:
    """Return for each unit the digits that occur in it and those that occur more than once, ``[18, n]``."""
    seen = np.zeros((len(UNITS), masks.shape[1]), np.uint8)
    twice = seen.copy()
    for cells in UNITS.T:
        twice |= seen & masks[cells]
        seen |= masks[cells]
    return seen, twice


def main() -> None:
    """Write the puzzles and say how many givens they have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data", help="folder to write to")
    parser.add_argument("--train", type=int, default=TRAIN, help=f"puzzles to train on (default: {TRAIN})")
    parser.add_argument("--test", type=int, default=TEST, help=f"puzzles to test on (default: {TEST})")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_split(arguments.out, arguments.train, arguments.test, arguments.seed)
    for path in (arguments.out / "train.npz", arguments.out / "test.npz"):
        counts = count_givens(np.load(path)["x"])
        print(f"{path}: " + ", ".join(f"{count} puzzles with {number} givens" for number, count in counts.items()))


if __name__ == "__main__":
    main()
