//! When to stop asking a store that does not answer, and when to ask again.
