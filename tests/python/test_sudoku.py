"""Sudoku: the puzzles are what they claim to be, and the shipped head solves unseen ones, more of them by step."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import trm_edge

BUNDLE = Path(trm_edge.__file__).parent / "data" / "sudoku.trm"
EXAMPLE = Path(__file__).parents[2] / "examples" / "sudoku"


@pytest.fixture(scope="module")
def puzzles() -> ModuleType:
    """Return ``examples/sudoku/puzzles.py``, which is a script's neighbour, not a package."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        import puzzles
    finally:
        sys.path.remove(str(EXAMPLE))
    return puzzles


@pytest.fixture(scope="module")
def split(puzzles: ModuleType) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return puzzles.make_split(train=400, test=200, seed=7)


def solutions_by_search(board: list[int], cell: int = 0) -> int:
    """Count solutions the plain way: try every digit in every blank."""
    if cell == 36:
        return 1
    row, column = divmod(cell, 6)
    peers = {
        board[6 * r + c]
        for r in range(6)
        for c in range(6)
        if (r, c) != (row, column) and (r == row or c == column or (r // 2, c // 3) == (row // 2, column // 3))
    }
    given, found = board[cell], 0
    for digit in [given] if given else range(1, 7):
        if digit not in peers:
            board[cell] = digit
            found += solutions_by_search(board, cell + 1)
    board[cell] = given
    return found


def assert_valid(grids: np.ndarray) -> None:
    """Every row, column and box of every grid holds 1..6 once."""
    boards = grids.reshape(-1, 6, 6)
    boxes = boards.reshape(-1, 3, 2, 2, 3).swapaxes(2, 3).reshape(-1, 6, 6)
    for units in (boards, boards.swapaxes(1, 2), boxes):
        assert (np.sort(units, axis=2) == np.arange(1, 7)).all()


def test_all_grids_are_there_in_their_49_classes(puzzles: ModuleType) -> None:
    grids, classes = puzzles.all_grids()
    assert len(np.unique(grids, axis=0)) * 720 == 28_200_960
    assert len(np.unique(classes)) == 49 and classes.min() == 0
    assert_valid(grids)


def test_symmetries_are_a_group_of_cell_permutations(puzzles: ModuleType) -> None:
    table = puzzles.position_symmetries()
    assert table.shape == (3456, 36) and len(np.unique(table, axis=0)) == 3456
    assert (np.sort(table, axis=1) == np.arange(36)).all()
    known = {row.tobytes() for row in table}
    rng = np.random.default_rng(0)
    for a, b in table[rng.integers(3456, size=(100, 2))]:
        assert a[b].tobytes() in known


@pytest.mark.parametrize("part", ["train", "test"])
def test_puzzles_have_one_solution_and_8_to_12_givens(puzzles: ModuleType, split: dict, part: str) -> None:
    x, target = split[part]
    givens = (x > 0).sum(axis=1)
    assert x.dtype == target.dtype == np.int32
    assert givens.min() >= 8 and givens.max() <= 12
    assert len(np.unique(x, axis=0)) == len(x)
    assert_valid(target)
    assert np.array_equal(np.where(x > 0, target, 0), x)
    assert (puzzles.count_solutions(x) == 1).all()
    assert np.array_equal(puzzles.solve(x), target)


def test_the_solver_agrees_with_a_plain_search(puzzles: ModuleType, split: dict) -> None:
    x, _ = split["test"]
    few = x[:6].copy()
    for puzzle in few[3:]:  # one given less: often more than one solution
        puzzle[np.flatnonzero(puzzle)[0]] = 0
    wrong = few[:1].copy()
    wrong[0, np.flatnonzero(wrong[0] == 0)[:2]] = 1  # two 1s in a row's box: none, or not a Sudoku at all
    boards = np.concatenate([few, wrong])
    expected = [min(solutions_by_search(board.tolist()), 5) for board in boards]
    assert puzzles.count_solutions(boards, limit=5).tolist() == expected
    assert (puzzles.solve(wrong) == 0).all() == (expected[-1] == 0)


def test_no_symmetry_connects_train_and_test(puzzles: ModuleType, split: dict) -> None:
    rng = np.random.default_rng(3)
    train, test = (classes_of(puzzles, split[part][1]) for part in ("train", "test"))
    assert not set(train) & set(test)
    for part, before in (("train", train), ("test", test)):  # and the class is what no symmetry changes
        moved = puzzles.augment({"x": split[part][0], "target": split[part][1]}, rng)
        assert np.array_equal(classes_of(puzzles, moved["target"]), before)


def classes_of(puzzles: ModuleType, targets: np.ndarray) -> np.ndarray:
    """Look each grid up, digits renamed so that its first row is 1..6."""
    grids, classes = puzzles.all_grids()
    index = {grid.tobytes(): number for grid, number in zip(grids, classes, strict=True)}
    names = np.argsort(targets[:, :6], axis=1) + 1
    renamed = np.take_along_axis(names, targets - 1, axis=1).astype(grids.dtype)
    return np.array([index[grid.tobytes()] for grid in renamed])


def test_augmentation_keeps_puzzles_valid_and_unique(puzzles: ModuleType, split: dict) -> None:
    x, target = split["train"]
    batch = {"x": x, "target": target}
    moved = puzzles.augment(batch, np.random.default_rng(5))
    again = puzzles.augment(batch, np.random.default_rng(5))
    assert np.array_equal(moved["x"], again["x"]) and np.array_equal(moved["target"], again["target"])
    assert moved["x"].dtype == x.dtype and (moved["x"] != x).any(axis=1).mean() > 0.99
    assert_valid(moved["target"])
    assert np.array_equal((moved["x"] > 0).sum(axis=1), (x > 0).sum(axis=1))
    assert np.array_equal(np.where(moved["x"] > 0, moved["target"], 0), moved["x"])
    assert (puzzles.count_solutions(moved["x"][:100]) == 1).all()


def test_the_same_seed_gives_the_same_puzzles(puzzles: ModuleType, split: dict) -> None:
    again = puzzles.make_split(train=400, test=200, seed=7)
    assert all(np.array_equal(a, b) for part in split for a, b in zip(split[part], again[part], strict=True))
    other = puzzles.make_split(train=50, test=20, seed=8)
    assert not np.array_equal(other["train"][0], split["train"][0][:50])


@pytest.mark.skipif(
    not BUNDLE.is_file(), reason="trm_edge/data/sudoku.trm is not there; examples/sudoku/run.py makes it"
)
def test_the_shipped_head_solves_unseen_puzzles(puzzles: ModuleType) -> None:
    x, target = puzzles.make_split(train=0, test=200, seed=99)["test"]
    refiner = trm_edge.load(BUNDLE, backend="fused")
    steps = np.stack([refiner.refine(puzzle, steps=16, trajectory=True).trajectory for puzzle in x])
    solved = (steps == target[:, None]).all(axis=2).mean(axis=0)
    assert solved[15] >= 0.9, f"{solved[15]:.1%} of 200 unseen puzzles at k = 16"
    assert solved[0] < solved[3] <= solved[15]
    assert BUNDLE.stat().st_size <= 1_500_000
