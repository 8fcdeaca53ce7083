//! Bridges, endpoints, addresses, published ports, name service.
