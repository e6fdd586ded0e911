//! Real servers and Python peers for the tests.
