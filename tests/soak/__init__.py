"""Exactly once: random scripts of monitors, deaths and disturbances, played between BEAMs and nodes of ours.

``script`` makes them, ``ledger`` judges what comes of them, ``world`` plays them with the nodes of ``sides``. Run by
``tests/interop/test_zenmon_soak.py``.
"""
