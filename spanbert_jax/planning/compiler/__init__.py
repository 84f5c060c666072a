"""The compilers: what they are given, and what is read from what they make. Runs in processes of its own."""
