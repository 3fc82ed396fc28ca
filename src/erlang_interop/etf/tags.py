"""Tag numbers of the External Term Format. Manual: *External Term Format*; ``erts/emulator/beam/external.h``.

Plain ``Final`` integers and no enum: the codec compares them for every term, and mypyc turns them into constants.
"""

from __future__ import annotations

from typing import Final

#: First byte of every external term that stands alone.
VERSION: Final = 131

#: Fragments and distribution headers; they occur behind :data:`VERSION` only on a distribution channel.
DIST_HEADER: Final = 68
DIST_FRAG_HEADER: Final = 69
DIST_FRAG_CONT: Final = 70
#: In front of a message where no atom cache was agreed.
PASS_THROUGH: Final = 112

RECORD_EXT: Final = 67
NEW_FLOAT_EXT: Final = 70
BIT_BINARY_EXT: Final = 77
COMPRESSED: Final = 80
ATOM_CACHE_REF: Final = 82
NEW_PID_EXT: Final = 88
NEW_PORT_EXT: Final = 89
NEWER_REFERENCE_EXT: Final = 90
SMALL_INTEGER_EXT: Final = 97
INTEGER_EXT: Final = 98
FLOAT_EXT: Final = 99
ATOM_EXT: Final = 100
REFERENCE_EXT: Final = 101
PORT_EXT: Final = 102
PID_EXT: Final = 103
SMALL_TUPLE_EXT: Final = 104
LARGE_TUPLE_EXT: Final = 105
NIL_EXT: Final = 106
STRING_EXT: Final = 107
LIST_EXT: Final = 108
BINARY_EXT: Final = 109
SMALL_BIG_EXT: Final = 110
LARGE_BIG_EXT: Final = 111
NEW_FUN_EXT: Final = 112
EXPORT_EXT: Final = 113
NEW_REFERENCE_EXT: Final = 114
SMALL_ATOM_EXT: Final = 115
MAP_EXT: Final = 116
FUN_EXT: Final = 117
ATOM_UTF8_EXT: Final = 118
SMALL_ATOM_UTF8_EXT: Final = 119
V4_PORT_EXT: Final = 120
LOCAL_EXT: Final = 121

#: Names for messages.
NAMES: Final[dict[int, str]] = {
    RECORD_EXT: "RECORD_EXT",
    NEW_FLOAT_EXT: "NEW_FLOAT_EXT",
    BIT_BINARY_EXT: "BIT_BINARY_EXT",
    COMPRESSED: "a compressed term",
    ATOM_CACHE_REF: "ATOM_CACHE_REF",
    NEW_PID_EXT: "NEW_PID_EXT",
    NEW_PORT_EXT: "NEW_PORT_EXT",
    NEWER_REFERENCE_EXT: "NEWER_REFERENCE_EXT",
    SMALL_INTEGER_EXT: "SMALL_INTEGER_EXT",
    INTEGER_EXT: "INTEGER_EXT",
    FLOAT_EXT: "FLOAT_EXT",
    ATOM_EXT: "ATOM_EXT",
    REFERENCE_EXT: "REFERENCE_EXT",
    PORT_EXT: "PORT_EXT",
    PID_EXT: "PID_EXT",
    SMALL_TUPLE_EXT: "SMALL_TUPLE_EXT",
    LARGE_TUPLE_EXT: "LARGE_TUPLE_EXT",
    NIL_EXT: "NIL_EXT",
    STRING_EXT: "STRING_EXT",
    LIST_EXT: "LIST_EXT",
    BINARY_EXT: "BINARY_EXT",
    SMALL_BIG_EXT: "SMALL_BIG_EXT",
    LARGE_BIG_EXT: "LARGE_BIG_EXT",
    NEW_FUN_EXT: "NEW_FUN_EXT",
    EXPORT_EXT: "EXPORT_EXT",
    NEW_REFERENCE_EXT: "NEW_REFERENCE_EXT",
    SMALL_ATOM_EXT: "SMALL_ATOM_EXT",
    MAP_EXT: "MAP_EXT",
    FUN_EXT: "FUN_EXT",
    ATOM_UTF8_EXT: "ATOM_UTF8_EXT",
    SMALL_ATOM_UTF8_EXT: "SMALL_ATOM_UTF8_EXT",
    V4_PORT_EXT: "V4_PORT_EXT",
    LOCAL_EXT: "LOCAL_EXT",
}
