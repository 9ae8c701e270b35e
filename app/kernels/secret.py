"""A secret of this process, for the hashes of tables in memory: no client can choose texts or ids that collide in them.

It decides where an entry lies in its table, and never what a look-up answers.
"""

import os
from typing import Any, Final, cast

import numpy as np

SECRET: Final[int] = cast(Any, np.uint64(int.from_bytes(os.urandom(8), "little")))
"""A word without a sign, as the kernels take it."""
