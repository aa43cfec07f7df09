"""Runs the Autobahn|Testsuite's fuzzer, kept to the loopback. Python 2.7; started by run.py.

    fuzzer27.py cases                      print the suite's cases and the titles of its groups
    fuzzer27.py fuzzingclient SPEC.json    check a server
    fuzzer27.py fuzzingserver SPEC.json    check a client; ends on SIGTERM

What the suite's own `wstest` lacks: it listens on every interface whatever its URL says, tells results only
in files at the end, and swallows its own errors. Each line on stdout that starts with "@" is JSON for run.py.
"""
# ruff: noqa: C402, I001, UP031 - Python 2.7

import json
import sys

from autobahntestsuite import wstest  # first: it chooses the reactor
from autobahntestsuite import case, fuzzing
from twisted.internet import reactor
from twisted.python import log

LOOPBACK = "127.0.0.1"


def tell(**fields):
    sys.stdout.write("@%s\n" % json.dumps(fields))
    sys.stdout.flush()


def keep_to_loopback():
    listen, connect = reactor.listenTCP, reactor.connectTCP

    def listen_local(port, factory, backlog=50, interface=""):
        return listen(port, factory, backlog, LOOPBACK)

    def connect_local(host, port, *args, **kwargs):
        if host != LOOPBACK:
            raise ValueError("not the loopback address: %r" % (host,))
        return connect(LOOPBACK, port, *args, **kwargs)

    def listen_local_tls(port, factory, context, backlog=50, interface=""):
        return listen_tls(port, factory, context, backlog, LOOPBACK)

    def connect_local_tls(host, port, *args, **kwargs):
        if host != LOOPBACK:
            raise ValueError("not the loopback address: %r" % (host,))
        return connect_tls(LOOPBACK, port, *args, **kwargs)

    listen_tls, connect_tls = reactor.listenSSL, reactor.connectSSL
    reactor.listenTCP, reactor.connectTCP = listen_local, connect_local
    reactor.listenSSL, reactor.connectSSL = listen_local_tls, connect_local_tls


def tell_results(reports):
    """Tells each result as it comes, and writes the suite's HTML pages only if they are wanted."""
    factories = []
    log_case, create_reports, init = (
        fuzzing.FuzzingFactory.__dict__[name] for name in ("logCase", "createReports", "__init__")
    )

    def remember(self, *args):
        init(self, *args)
        factories.append(self)

    def tell_case(self, result):
        log_case(self, result)
        told = dict((key, result[key]) for key in ("behavior", "behaviorClose", "duration"))
        if result["behavior"] != "OK" or result["behaviorClose"] != "OK":
            for key in ("description", "expectation", "received", "result", "resultClose", "remoteCloseCode"):
                told[key] = result[key]
            told["expected"] = result["expected"].get("OK")
            told["close_expected"] = result["expectedClose"].get("closeCode")
        tell(case=result["id"], **told)

    def write_reports():
        for factory in factories:
            create_reports(factory)

    fuzzing.FuzzingFactory.__init__ = remember
    fuzzing.FuzzingFactory.logCase = tell_case
    # Writing the pages blocks the reactor, so once, at the end, whatever /updateReports asks for.
    fuzzing.FuzzingFactory.createReports = lambda self: None
    if reports:
        reactor.addSystemEventTrigger("before", "shutdown", write_reports)


def print_error(event):
    if event.get("isError"):
        sys.stderr.write((log.textFromEventDict(event) or "") + "\n")


def main(mode, spec_path=None):
    if mode == "cases":
        ids = [c.__name__[len(case.CaseBasename) :].replace("_", ".") for c in case.Cases]
        tell(cases=ids, titles=case.CaseCategories)
        return
    with open(spec_path) as f:
        spec = json.load(f)
    keep_to_loopback()
    tell_results(spec["reports"])
    log.addObserver(print_error)
    reactor.callWhenRunning(tell, running=True)
    wstest.start({"mode": mode, "webport": 0, "debug": False}, spec)


if __name__ == "__main__":
    main(*sys.argv[1:])
