"""The claims of the article this project starts from, each as a measurement (docs/claims.md)."""
