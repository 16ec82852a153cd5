"""The driver protocol of package compat: arguments as KEY=VALUE, events as JSON lines on stdout, SIGTERM to end."""
import json
import signal
import sys

VALUE = b"a value that compresses well, well, well, well, well, well, well, well, well"


class Asked:
    """What the command line asks for."""

    def __init__(self, argv):
        self.verb = argv[1]
        self.rack = ""
        self.ca = ""  # a file with the authority of a TLS listener
        self.mechanism = ""  # of SASL, with user and password
        self.protocol = ""  # of the group: consumer for KIP-848
        for argument in argv[2:]:
            name, value = argument.split("=", 1)
            setattr(self, name, value)
        for name in ("partition", "offset", "count", "partitions", "replicas"):
            if hasattr(self, name):
                setattr(self, name, int(getattr(self, name)))

    def security(self):
        """The name of the listener's protocol."""
        return ("SASL_" if self.mechanism else "") + ("SSL" if self.ca else "PLAINTEXT")

    def keys(self):
        return [b"%s-%05d" % (self.codec.encode(), i) for i in range(self.count)]


class Ending:
    """Becomes true when the process is asked to end."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, *_):
        self.asked = True

    def __bool__(self):
        return self.asked


def emit(event, **fields):
    sys.stdout.write(json.dumps(dict(event=event, **fields)) + "\n")
    sys.stdout.flush()


def assigned(partitions):
    emit("assigned", partitions=sorted(partitions))


def record(partition, offset, key):
    emit("record", partition=partition, offset=offset, key=(key or b"").decode())
