"""Tests of MONAI Label's side without a server."""
