"""What a model would do on a device, from bytes, arithmetic and firing rates; nothing here runs an engine."""
