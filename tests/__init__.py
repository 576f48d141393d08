"""Tests: unit (no sockets), integration (a real chain, real databases), e2e; and benchmarks."""
