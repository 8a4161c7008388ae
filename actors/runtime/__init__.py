"""The base of all actors: actor, mailbox, supervision, bus, state store, settings, metrics."""

from importlib.metadata import version

VERSION = version("examwire")
