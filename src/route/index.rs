//! The index: a shortcut to the candidates of the specificity-sorted list.
