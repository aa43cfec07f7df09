"""WebSockets for asyncio."""
