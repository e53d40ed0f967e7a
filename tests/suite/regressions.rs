//! One test for each fault that was found after it had been believed not to be there.
