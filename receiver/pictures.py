"""What Pillow's readers raise for a broken picture: nearly anything."""

from __future__ import annotations

import struct
import zlib

# Of the first six, and the last, it is documented; the others were met. What is none of them is a
# mistake of ours.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    RuntimeError,
    TypeError,
    zlib.error,
)
