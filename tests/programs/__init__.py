"""Programs of others that use `websockets`, run unchanged on `wsfast.websockets`."""
