"""Tokens of logged-in users, which MONAI Label 0.8.5 refuses one and all."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import jwt

SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""By key pair only: with a shared secret, the realm's public key would be one that everybody knows."""


def accept_tokens() -> None:
    """Tell PyJWT which signatures count. Since its version 2 it must be told, and MONAI Label does not."""
    from monailabel.endpoints.user import auth

    auth.jwt = SimpleNamespace(decode=partial(jwt.decode, algorithms=SIGNATURES))
