"""Tokens of identity providers (JWT), proven with PyJWT."""
