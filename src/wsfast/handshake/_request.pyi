from ._request_py import read_usual as read_usual
