//! One test binary; a module per behaviour.

mod oracle;
