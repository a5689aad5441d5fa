"""Settings of the property tests of this folder."""

from __future__ import annotations

from hypothesis import settings

# torch is loaded inside the first example, and a busy machine is no failure
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
