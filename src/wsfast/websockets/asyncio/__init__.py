"""The asyncio client and server of `websockets`, on wsfast."""
