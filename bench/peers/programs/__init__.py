"""Programs that run in the peers' own environments, where foveal is not installed: each stands beside what it imports."""
