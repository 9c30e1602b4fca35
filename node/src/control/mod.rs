//! What a node serves to its peers and to the operator on its peer port, and to people and probes over HTTP.
