"""The distribution protocol without any input or output: bytes in, events out, the clock passed in."""
