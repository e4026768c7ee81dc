//! The reference node: wires the parts together, serves REST, reads the terminal
