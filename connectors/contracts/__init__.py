"""What sources, sinks and the flows between them agree on."""
