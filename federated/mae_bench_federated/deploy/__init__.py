"""What a server and its hospitals need on disk: certificates, keys, units, a proxy, and a check before the start."""
