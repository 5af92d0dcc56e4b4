"""What a server costs: load of many clients, and the share that HTTP takes."""
