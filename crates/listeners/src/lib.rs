//! proto://addr to bound sockets: tcp, unix, fd; TLS; the accept gate.
