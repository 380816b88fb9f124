# Copyright 2026 The fusionzoo authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Reading a pickle of number arrays without running what it says: for the fold files of MUStARD.

A pickle is a program. This reader knows five names (numpy's arrays and their helpers) and refuses any other.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from .raw_files import RawFileError


MAX_PICKLE_BYTES = 16 << 20

_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise RawFileError(f"The pickle asks for {module}.{name}, which is not a number array; it was not read.")
        if name == "_reconstruct":
            module = np.ndarray.__reduce__(np.zeros(1))[0].__module__  # numpy moved it between its versions
        return super().find_class(module, name)


def load_fold_indices(path: Path) -> list[tuple[list[int], list[int]]]:
    """[(train positions, test positions), ...] from a pickle of pairs of integer arrays.

    Raises:
        RawFileError: the file is too large, asks for anything but number arrays, or holds something else.
    """
    data = path.read_bytes()
    if len(data) > MAX_PICKLE_BYTES:
        raise RawFileError(f"{path.name} has {len(data):,} bytes; at most {MAX_PICKLE_BYTES:,} are read.")
    try:
        folds = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except RawFileError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise RawFileError(f"{path.name} is not a readable pickle ({type(error).__name__}).") from error
    try:
        return [(_integers(train), _integers(test)) for train, test in folds]
    except (TypeError, ValueError) as error:
        raise RawFileError(f"{path.name} must hold pairs of integer arrays: {error}") from error


def _integers(array: Any) -> list[int]:
    array = np.asarray(array)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"found an array of {array.dtype} with {array.ndim} dimensions")
    return array.tolist()
