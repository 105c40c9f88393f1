"""The operating system's schedulers, one module each."""
