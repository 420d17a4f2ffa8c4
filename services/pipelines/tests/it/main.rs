//! The service at its socket.
