"""Beyond one process and one machine, with Ray: replicas of a server, and actors that work through files."""
