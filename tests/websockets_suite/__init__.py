"""websockets' own tests, run on `wsfast.websockets`."""
