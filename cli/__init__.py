"""The `examwire` command. No rule of the exam lives here."""
