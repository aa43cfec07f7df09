"""uvicorn's own tests of WebSockets, run on `wsfast.uvicorn`. See `__main__`."""
