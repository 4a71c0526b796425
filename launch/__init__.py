"""Programs: everything with side effects (devices, files, clocks, printing) lives here."""
