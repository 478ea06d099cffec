"""The web application: providers, result files and pages."""
