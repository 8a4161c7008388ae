"""What every actor stands on: actor, mailbox, supervision, bus, state store, settings, metrics."""
