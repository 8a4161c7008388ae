"""The actors of examwire, one a file; `actors.runtime` is what each of them stands on."""
