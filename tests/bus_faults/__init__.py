"""Buses under faults: processes and engines are killed while messages flow, and every message is accounted for.

``python -m tests.bus_faults`` runs all for minutes; the suite runs a short form of each.
"""

from __future__ import annotations
