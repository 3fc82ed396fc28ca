"""The order of terms, before the judge: a BEAM compares each two of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from erlang_interop.otp.term_order import order_key
from tests.unit.otp.test_term_order import IN_ORDER

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam

TERMS = [term for row in IN_ORDER for term in row]


async def test_a_beam_orders_terms_alike(beam: Beam) -> None:
    verdicts = await beam.eval("[if A < B -> -1; A == B -> 0; true -> 1 end || A <- X, B <- X].", X=TERMS)
    for (one, other), verdict in zip(itertools.product(TERMS, TERMS), verdicts, strict=True):
        a, b = order_key(one), order_key(other)
        assert (a > b) - (a < b) == verdict, f"{one!r} and {other!r}"
