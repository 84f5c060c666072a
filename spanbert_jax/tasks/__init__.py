"""What the network is used for."""
