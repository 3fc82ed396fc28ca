"""Tests against genuine BEAMs, each once for every OTP asked for."""
