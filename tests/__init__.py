"""Tests: unit (no sockets), integration (a real chain, real databases), e2e; and benchmarks.

The folders of unit and integration are those of the packages: market/auction/clearing.py is tested by
unit/market/auction/test_clearing.py. A behaviour across modules has a name of its own, in the folder of what it is
mostly about. What tests put on stage is in support/, files of known answers are in golden/.
"""
