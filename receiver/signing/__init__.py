"""Signing: tokens in callback URLs, and Standard Webhooks signatures."""

from receiver.signing.callback_urls import callback_url, check, mint

__all__ = ["callback_url", "check", "mint"]
