//! The built-in upstream that answers with the request it received.
