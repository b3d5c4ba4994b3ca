"""What the tools of trust share: checked options, seeds, jobs, and results that are plain arrays."""

import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
RandomState = int | np.random.Generator | np.random.RandomState | None
Progress = Callable[[int, int], object]
"""Called with the number of jobs done and the number of jobs."""

_JSON = ".json"


class Result:
    """A frozen dataclass of arrays, numbers and texts that goes into a file without pickle."""

    def state(self) -> dict[str, Array]:
        """All fields as numeric arrays; texts as JSON in bytes; fields that are None are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        packed: dict[str, Array] = {}
        for name, value in values.items():
            if isinstance(value, str | tuple):
                packed[name + _JSON] = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
            elif value is not None:
                packed[name] = np.asarray(value)
        return packed

    @classmethod
    def from_state(cls, state: Mapping[str, Array]) -> Self:
        """The result that :meth:`state` describes.

        Raises:
            ValueError: if arrays are missing or unknown.
        """
        values: dict[str, Any] = {field.name: None for field in fields(cls)}  # type: ignore[arg-type]
        for key, value in state.items():
            name, array = key.removesuffix(_JSON), np.asarray(value)
            if name not in values:
                raise ValueError(f"{name!r} is no part of a {cls.__name__}: {', '.join(values)}")
            if key.endswith(_JSON):
                read = json.loads(array.tobytes().decode())
                values[name] = tuple(read) if isinstance(read, list) else read
            else:
                values[name] = array if array.ndim else array.item()
        optional = {field.name for field in fields(cls) if field.default is None}  # type: ignore[arg-type]
        if missing := [name for name, value in values.items() if value is None and name not in optional]:
            raise ValueError(f"the state of a {cls.__name__} lacks {', '.join(missing)}")
        return cls(**values)


def whole(option: str, value: Any, least: int) -> int:
    """An option that is a whole number from ``least`` on, or a ValueError that names it."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{option} must be a whole number from {least} on, not {value!r}")
    return number


def share(option: str, value: Any, most: str = "below 1") -> float:
    """An option above 0 and below 1 (or up to 1), or a ValueError that names it."""
    number = value if isinstance(value, int | float | np.number) and not isinstance(value, bool) else -1.0
    if not (0 < number < 1 or (number == 1 and most == "up to 1")):
        raise ValueError(f"{option} must be a number above 0 and {most}, not {value!r}")
    return float(number)


def entropy(random_state: RandomState) -> int:
    """One whole number that all seeds of a run come from: the same for the same int, fresh for None."""
    if random_state is None:
        return int(np.random.default_rng().integers(2**32))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**32))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**32, dtype=np.uint64))
    return whole("random_state", random_state, 0)


def generator(root: int, *where: int) -> np.random.Generator:
    """The generator of one job. It depends on the job's own number, never on which jobs ran before it."""
    return np.random.default_rng(np.random.SeedSequence(root, spawn_key=where))


def seed(root: int, *where: int) -> int:
    """The seed of one job, below 2³¹."""
    return int(generator(root, *where).integers(2**31))


def in_parallel(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], n_jobs: int | None, prefer: str
) -> Iterator[Any]:
    """``function(*job)`` for all jobs, each as soon as it is there, in any order."""
    if prefer not in ("processes", "threads"):
        raise ValueError(f"prefer must be 'processes' or 'threads', not {prefer!r}")
    run = Parallel(n_jobs=n_jobs, prefer=prefer, return_as="generator_unordered")
    yield from run(delayed(function)(*job) for job in jobs)


def names_of(names: Sequence[str] | None, count: int, what: str = "x") -> list[str]:
    """Given names, or x0, x1, …, as scikit-learn calls columns that have none."""
    if names is None:
        return [f"{what}{i}" for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{count} names are needed and {len(names)} were given")
    return [str(name) for name in names]


def first_of(names: Sequence[str], most: int = 10) -> str:
    """Names in a sentence: the first ones and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
