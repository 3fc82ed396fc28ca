"""The External Term Format: bytes to terms and back, and the text form. Spec: *External Term Format*."""

from erlang_interop.etf._decode import decode
from erlang_interop.etf._encode import encode

__all__ = ["decode", "encode"]
