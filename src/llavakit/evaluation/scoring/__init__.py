"""How answers are read and marked, one rule a file, each shared by several benchmarks."""
